//! Published ports: what is asked for, what was decided, and the bound socket that holds it.
//!
//! The packets never reach that socket, nftables rewrites them before. It exists so that the kernel refuses the port
//! to everybody else, and us when somebody has it. It closes with the [`PortReservation`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// A transport protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" | "TCP" => Ok(Self::Tcp),
            "udp" | "UDP" => Ok(Self::Udp),
            "sctp" | "SCTP" => Err(Error::new(
                ErrorKind::Unsupported,
                "publish a port: SCTP is not supported; use tcp or udp",
            )),
            _ => Err(Error::invalid(format!(
                "publish a port: unknown protocol \"{}\"; use tcp or udp",
                text.escape_debug()
            ))),
        }
    }
}

/// A port of a container, written `80/tcp`; a bare number means TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    /// The port, never 0.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.port, self.protocol)
    }
}

impl FromStr for ContainerPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => (port, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        Ok(Self { port: parse_port(port)?, protocol })
    }
}

/// Reads a host port or range as in the Engine API's `HostPort`: `8080`, `8000-8010`; empty or `0` means any free one.
///
/// # Errors
/// `InvalidInput` for anything else.
pub fn parse_host_ports(text: &str) -> Result<Option<RangeInclusive<u16>>> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if first > last {
        return Err(Error::invalid(format!(
            "parse port range \"{first}-{last}\": the first exceeds the last"
        )));
    }
    Ok(Some(first..=last))
}

fn parse_port(text: &str) -> Result<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or_else(|| {
        Error::invalid(format!(
            "parse port \"{}\": want a number from 1 to 65535",
            text.escape_debug()
        ))
    })
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// The host address to publish on; unspecified (`0.0.0.0`) means every one.
    pub host_ip: IpAddr,
    /// The host ports to choose from; absent means any port of the kernel's ephemeral range.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The port inside the container.
    pub container: ContainerPort,
}

/// One published port with everything decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host address; unspecified (`0.0.0.0`) means every one.
    pub host_ip: IpAddr,
    /// The port on the host, never 0.
    pub host_port: u16,
    /// The port in the container, never 0.
    pub container_port: u16,
    /// The protocol of both.
    pub protocol: Protocol,
}

impl fmt::Display for PortMapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port, container_port, protocol } = self;
        write!(formatter, "{}:{container_port}/{protocol}", SocketAddr::new(*host_ip, *host_port))
    }
}

/// A host port held for a container by a bound socket, until dropped.
#[derive(Debug)]
pub struct PortReservation {
    mapping: PortMapping,
    _socket: OwnedFd,
}

impl PortReservation {
    /// Binds the host port, or the first free one of a range, in the calling thread's network namespace.
    ///
    /// # Errors
    /// `Conflict` with Docker's text (`Bind for 0.0.0.0:8080 failed: port is already allocated`) when every candidate
    /// is taken; `InvalidInput` when the host does not have the address; `Unsupported` for IPv6.
    pub fn acquire(request: &PortRequest) -> Result<Self> {
        let IpAddr::V4(host_ip) = request.host_ip else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "publish on {}: IPv6 is not supported yet; publish on an IPv4 address",
                    request.host_ip
                ),
            ));
        };
        let candidates = request.host_ports.clone().unwrap_or(0..=0);
        let protocol = request.container.protocol;
        for port in candidates.clone() {
            match hold(host_ip, port, protocol) {
                Ok((socket, host_port)) => {
                    let mapping = PortMapping {
                        host_ip: request.host_ip,
                        host_port,
                        container_port: request.container.port,
                        protocol,
                    };
                    return Ok(Self { mapping, _socket: socket });
                }
                Err(Errno::ADDRINUSE) => {}
                Err(errno) => return Err(refusal(host_ip, port, errno)),
            }
        }
        let text = match (candidates.start(), candidates.end()) {
            (0, _) => format!("bind a free port of {host_ip}: every ephemeral port is in use"),
            (first, last) if first == last => {
                format!("Bind for {host_ip}:{first} failed: port is already allocated")
            }
            (first, last) => {
                format!("Bind for {host_ip}:{first}-{last} failed: all ports are already allocated")
            }
        };
        Err(Error::new(ErrorKind::Conflict, text))
    }

    /// The decided mapping, for [`Endpoint::ports`](crate::Endpoint::ports).
    #[must_use]
    pub fn mapping(&self) -> PortMapping {
        self.mapping
    }
}

fn refusal(host_ip: Ipv4Addr, port: u16, errno: Errno) -> Error {
    match errno {
        Errno::ADDRNOTAVAIL => Error::errno(
            format!("bind {host_ip}:{port}: publish on an address of this host"),
            errno,
        )
        .with_kind(ErrorKind::InvalidInput),
        _ => Error::errno(format!("bind {host_ip}:{port}"), errno),
    }
}

/// A socket bound to the port, and the port (chosen by the kernel when 0 was asked).
fn hold(
    host_ip: Ipv4Addr,
    port: u16,
    protocol: Protocol,
) -> std::result::Result<(OwnedFd, u16), Errno> {
    let address = SocketAddr::new(host_ip.into(), port);
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let open = || socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None);
    let mut socket = open()?;
    match bind(&socket, &address) {
        // Connections that a former server closed hold the port in TIME_WAIT for a minute. SO_REUSEADDR gets past them;
        // only a listening socket then still keeps others out (inet_csk_bind_conflict in Linux).
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            socket = open()?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, 1)?;
        }
        bound => bound?,
    }
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn request(host_ports: Option<RangeInclusive<u16>>, protocol: Protocol) -> PortRequest {
        PortRequest {
            host_ip: Ipv4Addr::LOCALHOST.into(),
            host_ports,
            container: ContainerPort { port: 80, protocol },
        }
    }

    #[test]
    fn a_taken_port_is_refused_in_dockers_words() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error =
            PortReservation::acquire(&request(Some(port..=port), Protocol::Tcp)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
    }

    #[test]
    fn a_reservation_keeps_others_out_until_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let held = PortReservation::acquire(&request(None, protocol)).unwrap();
            let port = held.mapping().host_port;
            assert_ne!(port, 0);
            let again = request(Some(port..=port), protocol);
            assert!(PortReservation::acquire(&again).is_err());
            match protocol {
                Protocol::Tcp => assert!(TcpListener::bind(("127.0.0.1", port)).is_err()),
                Protocol::Udp => assert!(UdpSocket::bind(("127.0.0.1", port)).is_err()),
            }
            drop(held);
            PortReservation::acquire(&again).unwrap();
        }
    }

    #[test]
    fn a_range_yields_its_first_free_port() {
        let first = PortReservation::acquire(&request(None, Protocol::Tcp)).unwrap();
        let port = first.mapping().host_port;
        let range = port..=port.saturating_add(20);
        let second = PortReservation::acquire(&request(Some(range), Protocol::Tcp)).unwrap();
        assert!(second.mapping().host_port > port);
    }

    #[test]
    fn an_address_of_another_host_is_invalid() {
        let mut request = request(None, Protocol::Tcp);
        request.host_ip = "192.0.2.1".parse().unwrap();
        assert_eq!(PortReservation::acquire(&request).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn port_texts_are_checked() {
        assert_eq!(parse_host_ports("8000-8010").unwrap(), Some(8000..=8010));
        assert_eq!(parse_host_ports("").unwrap(), None);
        assert_eq!(parse_host_ports("0").unwrap(), None);
        for text in ["-", "1-", "-1", "10-9", "65536", "+1", " 1", "1-2-3", "a"] {
            assert!(parse_host_ports(text).is_err(), "{text}");
        }
        assert_eq!("53/udp".parse::<ContainerPort>().unwrap().to_string(), "53/udp");
        assert_eq!("80".parse::<ContainerPort>().unwrap().to_string(), "80/tcp");
        for text in ["0", "80/", "80/sctp", "/tcp", "80/tcp/udp"] {
            assert!(text.parse::<ContainerPort>().is_err(), "{text}");
        }
    }
}
