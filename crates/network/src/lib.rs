//! Container networks over netlink: bridges, veth pairs, addresses, nftables, published ports, DNS answers.
#![forbid(unsafe_code)]

mod address;
mod config;
mod conntrack;
pub mod dns;
mod error;
mod firewall;
#[doc(hidden)]
pub mod fuzzing;
pub mod ipam;
pub mod netns;
mod networks;
mod nft;
mod ports;
mod route;
mod sysctl;

pub use address::{IpNet, MacAddress};
pub use config::{Driver, Endpoint, InterfaceName, NetworkConfig, Subnet};
pub use error::{Error, ErrorKind, Result};
pub use networks::{Instance, NetworkState, Networks, Problem, ProblemKind, Teardown};
pub use ports::{
    ContainerPort, PortMapping, PortRequest, PortReservation, Protocol, parse_host_ports,
};
