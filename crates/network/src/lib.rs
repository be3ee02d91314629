//! Container networks over netlink: bridges, veth pairs, addresses, nftables, published ports, DNS answers.
//!
//! This crate runs no program, keeps no file and holds no state: the caller has the records, the kernel has the rest.
//! Everything made is named after the caller's ids, so what a crash leaves is found and removed.
//!
//! - [`Networks`]: creates and removes networks, connects and disconnects containers, rebuilds the firewall, sweeps
//!   leftovers, finds what is in the way.
//! - [`NetworkConfig`], [`Endpoint`]: what a network and a container's place in it are; checked before anything is done.
//! - [`ipam`]: free subnets and addresses, as pure functions.
//! - [`PortReservation`]: a host port that nobody else can take.
//! - [`netns`]: network namespaces that live at a path.
//! - [`dns`]: answers for container names, and sockets to hear the questions on. The loop is the caller's.
//!
//! # Example
//!
//! ```no_run
//! use brig_network::{
//!     ContainerPort, Endpoint, Instance, NetworkConfig, Networks, PortRequest, PortReservation, ipam, netns,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let networks = Networks::new(Instance::new("example")?);
//!
//! // A bridge on a subnet that nothing on this host uses.
//! let subnet = ipam::choose_subnet(None, &networks.occupied()?)?;
//! let backend = NetworkConfig::bridge("5f1c0e9a77d2", "backend", subnet)?;
//! networks.create(&backend)?;
//!
//! // A container on it, whose port 80 is the host's port 8080.
//! let namespace = std::path::Path::new("/run/example/web");
//! netns::create(namespace)?;
//! let port = PortReservation::acquire(&PortRequest {
//!     host_ip: "0.0.0.0".parse()?,
//!     host_ports: Some(8080..=8080),
//!     container: "80/tcp".parse::<ContainerPort>()?,
//! })?;
//! let address = ipam::allocate(backend.subnet()?, &[].into(), None)?;
//! let mut web = Endpoint::new("web", namespace, address);
//! web.gateway = Some(backend.subnet()?.gateway);
//! web.ports = vec![port.mapping()];
//! networks.connect(&backend, &web)?;
//!
//! // Run something in the namespace; then take it all away. Teardown goes on past errors and returns them.
//! networks.disconnect(&backend, &web).into_result()?;
//! networks.remove(&backend).into_result()?;
//! networks.destroy()?;
//! netns::remove(namespace)?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/two-namespaces` does this with two containers that speak to each other; run it as root.
//!
//! # What it does to the host
//!
//! - Links named `br-…` and `veth…`, marked with an alias that begins with `brig:` and the instance's name.
//! - One nftables table, family inet, named like the instance. Other tables are not
//!   touched: a table that drops forwarded packets keeps doing so, and [`Networks::diagnose`] names it.
//! - `net.ipv4.ip_forward` is set to 1 with the first network that leads out, and stays so.
//! - `net.ipv4.conf.BRIDGE.route_localnet` is set to 1 on bridges whose containers publish on loopback; the table's first
//!   rules drop what that would let in.
//! - IPv6 is disabled on the links made here, at both ends: networks are IPv4 so far.
//!
//! # Who reaches what
//!
//! | from | to | passes |
//! |---|---|---|
//! | container | its network | yes, unless `inter_container` is off |
//! | container | another network's container | published ports only, at the host's addresses |
//! | container | beyond the host | yes, with the host's address; not from an internal network |
//! | the host | container | yes |
//! | neighbours of the host | container | ports published on the address they use; never by routing to the container's own address |
//!
//! It needs `CAP_NET_ADMIN`, and `CAP_SYS_ADMIN` for the namespaces, and Linux 5.10.
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
pub use networks::{
    Instance, LinkComparison, NetworkState, Networks, Problem, ProblemKind, Teardown,
};
pub use ports::{
    ContainerPort, PortMapping, PortRequest, PortReservation, Protocol, parse_host_ports,
};
