//! Container networks over netlink: bridges, veth pairs, addresses, nftables, published ports, DNS answers.
#![forbid(unsafe_code)]

mod address;
mod config;
mod error;
pub mod ipam;
mod ports;

pub use address::{IpNet, MacAddress};
pub use config::{Driver, Endpoint, InterfaceName, NetworkConfig, Subnet};
pub use error::{Error, ErrorKind, Result};
pub use ports::{
    ContainerPort, PortMapping, PortRequest, PortReservation, Protocol, parse_host_ports,
};
