//! Entry points for fuzzers; no part of the interface.

use crate::dns::{self, External, Zone};
use crate::{ContainerPort, IpNet, MacAddress, Protocol, conntrack, parse_host_ports};

/// Answers a DNS query from a zone of one name; an internal zone must not forward.
///
/// # Panics
/// When it does.
pub fn dns_query(bytes: &[u8]) {
    let mut zone = Zone::new(External::Unknown);
    let _ = zone.insert("web", std::net::Ipv4Addr::new(10, 89, 0, 2).into());
    for transport in [Protocol::Udp, Protocol::Tcp] {
        assert_ne!(dns::answer(bytes, &zone, transport), dns::Answer::Forward);
    }
}

/// Decodes an entry of the connection table.
pub fn tracked_connection(bytes: &[u8]) {
    conntrack::decode(bytes);
}

/// Parses text as everything that comes as text.
pub fn texts(text: &str) {
    let _ = text.parse::<ContainerPort>();
    let _ = text.parse::<IpNet>();
    let _ = text.parse::<MacAddress>();
    let _ = parse_host_ports(text);
}
