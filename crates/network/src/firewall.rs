//! The instance's one nf_tables table: rules that never change, and sets that say which bridges, subnets and ports
//! they apply to. What follows from a network or endpoint is a pure function; the kernel takes each change as one
//! transaction.
//!
//! ```text
//! raw         prerouting  -300  127.0.0.0/8 never arrives on a link but lo (CVE-2020-8558; route_localnet is on)
//! prerouting  dstnat      -100  to a local address → published
//! output      dstnat      -100  to a local address → published
//! published                     @ports, @ranges → DNAT to the container
//! forward     filter         0  within one bridge        @within: accept, or only replies and published ports
//!                               into or out of @internal drop
//!                               to @bridges              accept replies and published ports, drop the rest:
//!                                                        other networks, neighbours that route to containers
//! postrouting srcnat       100  from this host or the same subnet to a published port → masquerade (hairpin)
//!                               within a subnet          accept
//!                               from @masquerade         masquerade
//! ```
//!
//! Traffic that concerns none of our bridges passes untouched. An `accept` here cannot overrule a `drop` elsewhere:
//! `Networks::diagnose` finds such tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::nft::{
    Base, Chain, ConntrackKey, Data, Destination, Element, Endpoint as Side, Expression as E,
    FAMILY_IPV4, Hook, MetaKey, PayloadBase, Rule, Set, Table, Type, Value, Verdict, concatenate,
    interface_name,
};
use crate::{Endpoint, IpNet, NetworkConfig, PortMapping, Result};

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const WITHIN: &str = "within";
const ATTACHED: &str = "attached";
const MASQUERADE: &str = "masquerade";
const PORTS: &str = "ports";
const RANGES: &str = "ranges";
const PUBLISHED: &str = "published";
const SEPARATE: &str = "separate";

const PORT_KEY: &[Type] = &[Type::Ipv4Address, Type::InetProtocol, Type::InetService];

/// The table as it is before any network exists.
pub(crate) fn table(name: &str) -> Table {
    let set = |name, key, intervals, value| Set { name, key, intervals, value };
    Table {
        name: name.to_owned(),
        sets: vec![
            set(BRIDGES, &[Type::InterfaceName], false, Value::None),
            set(INTERNAL, &[Type::InterfaceName], false, Value::None),
            set(WITHIN, &[Type::InterfaceName, Type::InterfaceName], false, Value::Verdict),
            set(ATTACHED, &[Type::Ipv4Address, Type::InterfaceName], true, Value::None),
            set(MASQUERADE, &[Type::Ipv4Address, Type::Ipv4Address], true, Value::None),
            set(PORTS, PORT_KEY, true, Value::Data(&[Type::Ipv4Address, Type::InetService])),
            set(RANGES, PORT_KEY, true, Value::Data(&[Type::Ipv4Address])),
        ],
        chains: chains(),
    }
}

fn chains() -> Vec<Chain> {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let chain = |name, base, rules| Chain { name, base, rules };
    vec![
        chain(PUBLISHED, None, published()),
        chain(SEPARATE, None, separate()),
        chain("raw", base("filter", Hook::Prerouting, -300), raw()),
        chain("prerouting", base("nat", Hook::Prerouting, -100), to_local()),
        chain("output", base("nat", Hook::Output, -100), to_local()),
        chain("forward", base("filter", Hook::Forward, 0), forward()),
        chain("postrouting", base("nat", Hook::Postrouting, 100), postrouting()),
    ]
}

fn raw() -> Vec<Rule> {
    // Offsets of source and destination in the IPv4 header; the first octet alone decides.
    [12, 16]
        .into_iter()
        .map(|offset| {
            vec![
                E::Meta { key: MetaKey::InputName, to: 0 },
                E::NotEqual { register: 0, value: interface_name("lo") },
                E::Meta { key: MetaKey::NetworkProtocol, to: 0 },
                E::Equal { register: 0, value: vec![FAMILY_IPV4] },
                E::Payload { base: PayloadBase::Network, offset, length: 1, to: 0 },
                E::Equal { register: 0, value: vec![127] },
                E::Verdict(Verdict::Drop),
            ]
        })
        .collect()
}

fn to_local() -> Vec<Rule> {
    let mut rule = ipv4();
    rule.extend(address_is_local(Side::Destination));
    rule.push(E::Verdict(Verdict::Jump(PUBLISHED)));
    vec![rule]
}

fn published() -> Vec<Rule> {
    let lookup = |set, port| {
        let mut rule = ipv4();
        rule.extend([
            E::Payload { base: PayloadBase::Network, offset: 16, length: 4, to: 0 },
            E::Meta { key: MetaKey::TransportProtocol, to: 1 },
            E::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: 2 },
            E::Lookup { set, from: 0, to: Some(Destination::Register(0)) },
            E::DestinationNat { address: 0, port },
        ]);
        rule
    };
    vec![lookup(PORTS, Some(1)), lookup(RANGES, None)]
}

fn forward() -> Vec<Rule> {
    let input =
        |set| [E::Meta { key: MetaKey::InputName, to: 0 }, E::Lookup { set, from: 0, to: None }];
    let output =
        |set| [E::Meta { key: MetaKey::OutputName, to: 0 }, E::Lookup { set, from: 0, to: None }];
    let then = |head: &[E], tail: Vec<E>| [head, &tail].concat();
    let drop = || vec![E::Verdict(Verdict::Drop)];
    vec![
        vec![
            E::Meta { key: MetaKey::InputName, to: 0 },
            E::Meta { key: MetaKey::OutputName, to: 4 },
            E::Lookup { set: WITHIN, from: 0, to: Some(Destination::Verdict) },
        ],
        then(&input(INTERNAL), drop()),
        then(&output(INTERNAL), drop()),
        then(&output(BRIDGES), reply(Verdict::Accept)),
        then(&output(BRIDGES), translated(E::Verdict(Verdict::Accept))),
        then(&output(BRIDGES), drop()),
    ]
}

/// Endpoints of one network that may not speak to each other, except through published ports.
fn separate() -> Vec<Rule> {
    vec![
        reply(Verdict::Accept),
        translated(E::Verdict(Verdict::Accept)),
        vec![E::Verdict(Verdict::Drop)],
    ]
}

fn postrouting() -> Vec<Rule> {
    let same_subnet = || {
        [
            E::Payload { base: PayloadBase::Network, offset: 12, length: 4, to: 0 },
            E::Meta { key: MetaKey::OutputName, to: 1 },
            E::Lookup { set: ATTACHED, from: 0, to: None },
        ]
    };
    let mut from_host = ipv4();
    from_host.extend([
        E::Meta { key: MetaKey::OutputName, to: 0 },
        E::Lookup { set: BRIDGES, from: 0, to: None },
    ]);
    from_host.extend(address_is_local(Side::Source));
    from_host.extend(translated(E::Masquerade));
    let mut hairpin = ipv4();
    hairpin.extend(same_subnet());
    hairpin.extend(translated(E::Masquerade));
    let mut within = ipv4();
    within.extend(same_subnet());
    within.push(E::Verdict(Verdict::Accept));
    let mut outward = ipv4();
    outward.extend([
        // Source and destination, which follow each other.
        E::Payload { base: PayloadBase::Network, offset: 12, length: 8, to: 0 },
        E::Lookup { set: MASQUERADE, from: 0, to: None },
        E::Masquerade,
    ]);
    vec![from_host, hairpin, within, outward]
}

fn ipv4() -> Vec<E> {
    vec![
        E::Meta { key: MetaKey::NetworkProtocol, to: 0 },
        E::Equal { register: 0, value: vec![FAMILY_IPV4] },
    ]
}

fn address_is_local(of: Side) -> [E; 2] {
    // RTN_LOCAL (linux/rtnetlink.h)
    [E::AddressType { of, to: 0 }, E::Equal { register: 0, value: 2_u32.to_ne_bytes().to_vec() }]
}

/// Of a connection that was let through already.
fn reply(verdict: Verdict) -> Vec<E> {
    // NF_CT_STATE_BIT: established is 2, related 4.
    let mask = 6_u32.to_ne_bytes();
    vec![
        E::Conntrack { key: ConntrackKey::State, to: 0 },
        E::Mask { register: 0, mask },
        E::NotEqual { register: 0, value: vec![0; 4] },
        E::Verdict(verdict),
    ]
}

/// Of a connection whose destination was rewritten: a published port.
fn translated(then: E) -> Vec<E> {
    // IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h)
    let mask = (1_u32 << 5).to_ne_bytes();
    vec![
        E::Conntrack { key: ConntrackKey::Status, to: 0 },
        E::Mask { register: 0, mask },
        E::NotEqual { register: 0, value: vec![0; 4] },
        then,
    ]
}

/// What a network puts into the sets.
pub(crate) fn network_elements(network: &NetworkConfig) -> Result<Vec<Element>> {
    let bridge = network.bridge_name();
    let name = interface_name(bridge.as_str());
    let subnet = network.subnet()?.network;
    let element = |set, key, key_end, data| {
        let description = format!("bridge {bridge}");
        Element { set, key, key_end, data, description }
    };
    let within = if network.inter_container { Data::Accept } else { Data::Goto(SEPARATE) };
    let mut elements = vec![
        element(BRIDGES, name.clone(), None, Data::None),
        element(WITHIN, concatenate(&[&name, &name]), None, within),
    ];
    let (first, last) = bounds(subnet);
    elements.push(element(
        ATTACHED,
        concatenate(&[&first, &name]),
        Some(concatenate(&[&last, &name])),
        Data::None,
    ));
    if network.internal {
        elements.push(element(INTERNAL, name, None, Data::None));
    } else if network.masquerade {
        elements.push(element(
            MASQUERADE,
            concatenate(&[&first, &[0; 4]]),
            Some(concatenate(&[&last, &[0xff; 4]])),
            Data::None,
        ));
    }
    Ok(elements)
}

/// What an endpoint puts into the maps: an element for each run of published ports.
pub(crate) fn endpoint_elements(network: &NetworkConfig, endpoint: &Endpoint) -> Vec<Element> {
    let IpAddr::V4(container) = endpoint.address.address() else { return Vec::new() };
    if network.internal {
        return Vec::new();
    }
    let mut elements: Vec<_> =
        runs(&endpoint.ports).into_iter().filter_map(|run| run_element(container, &run)).collect();
    elements.sort();
    elements
}

/// Consecutive host ports that keep their number inside; or one port that need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: PortMapping,
    last: u16,
}

/// A range of a thousand ports is one element.
fn runs(ports: &[PortMapping]) -> Vec<Run> {
    let unique: BTreeSet<_> = ports
        .iter()
        .map(|port| (port.host_ip, port.protocol, port.host_port, port.container_port))
        .collect();
    let mut runs: Vec<Run> = Vec::new();
    for (host_ip, protocol, host_port, container_port) in unique {
        let mapping = PortMapping { host_ip, host_port, container_port, protocol };
        let kept = |port: &PortMapping| port.host_port == port.container_port;
        match runs.last_mut() {
            Some(run)
                if kept(&mapping)
                    && kept(&run.first)
                    && (run.first.host_ip, run.first.protocol) == (host_ip, protocol)
                    && run.last.checked_add(1) == Some(host_port) =>
            {
                run.last = host_port;
            }
            _ => runs.push(Run { first: mapping, last: host_port }),
        }
    }
    runs
}

fn run_element(container: Ipv4Addr, run: &Run) -> Option<Element> {
    let IpAddr::V4(host_ip) = run.first.host_ip else { return None };
    let (first, last) = if host_ip.is_unspecified() {
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
    } else {
        (host_ip, host_ip)
    };
    let protocol = [run.first.protocol.number()];
    let key = |address: Ipv4Addr, port: u16| {
        concatenate(&[&address.octets(), &protocol, &port.to_be_bytes()])
    };
    let ranged = run.last != run.first.host_port;
    let (set, data) = if ranged {
        (RANGES, concatenate(&[&container.octets()]))
    } else {
        (PORTS, concatenate(&[&container.octets(), &run.first.container_port.to_be_bytes()]))
    };
    Some(Element {
        set,
        key: key(first, run.first.host_port),
        key_end: Some(key(last, run.last)),
        data: Data::Value(data),
        description: format!("published port {}", run.first),
    })
}

/// The first and last address of an IPv4 subnet.
fn bounds(subnet: IpNet) -> ([u8; 4], [u8; 4]) {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    (octets(subnet.network().address()), octets(subnet.last()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn mapping(host: u16, container: u16, protocol: Protocol) -> PortMapping {
        PortMapping {
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port: host,
            container_port: container,
            protocol,
        }
    }

    fn network() -> NetworkConfig {
        NetworkConfig::bridge("0123456789abcdef", "web", "10.89.0.0/24".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_range_of_ports_is_one_element() {
        let mut endpoint = Endpoint::new("c", "/x", "10.89.0.2/24".parse().unwrap());
        endpoint.ports = (8000..9000).map(|port| mapping(port, port, Protocol::Tcp)).collect();
        endpoint.ports.push(mapping(8000, 8000, Protocol::Udp));
        endpoint.ports.push(mapping(7000, 80, Protocol::Tcp));
        endpoint.ports.push(mapping(7001, 81, Protocol::Tcp));
        let elements = endpoint_elements(&network(), &endpoint);
        assert_eq!(elements.iter().filter(|element| element.set == RANGES).count(), 1);
        assert_eq!(elements.iter().filter(|element| element.set == PORTS).count(), 3);
        let range = elements.iter().find(|element| element.set == RANGES).unwrap();
        assert_eq!(range.key, concatenate(&[&[0; 4], &[6], &8000_u16.to_be_bytes()]));
        assert_eq!(
            range.key_end.as_deref(),
            Some(&concatenate(&[&[255; 4], &[6], &8999_u16.to_be_bytes()])[..])
        );
    }

    #[test]
    fn order_and_repetition_of_mappings_do_not_matter() {
        let mut a = Endpoint::new("c", "/x", "10.89.0.2/24".parse().unwrap());
        a.ports = vec![
            mapping(3, 3, Protocol::Tcp),
            mapping(1, 1, Protocol::Tcp),
            mapping(2, 2, Protocol::Tcp),
        ];
        let mut b = a.clone();
        b.ports = vec![
            mapping(1, 1, Protocol::Tcp),
            mapping(2, 2, Protocol::Tcp),
            mapping(3, 3, Protocol::Tcp),
        ];
        b.ports.push(mapping(1, 1, Protocol::Tcp));
        assert_eq!(endpoint_elements(&network(), &a), endpoint_elements(&network(), &b));
        assert_eq!(endpoint_elements(&network(), &a).len(), 1);
    }

    #[test]
    fn internal_networks_publish_and_masquerade_nothing() {
        let network = NetworkConfig { internal: true, ..network() };
        let mut endpoint = Endpoint::new("c", "/x", "10.89.0.2/24".parse().unwrap());
        endpoint.ports = vec![mapping(80, 80, Protocol::Tcp)];
        assert!(endpoint_elements(&network, &endpoint).is_empty());
        let sets: Vec<_> =
            network_elements(&network).unwrap().iter().map(|element| element.set).collect();
        assert!(sets.contains(&INTERNAL) && !sets.contains(&MASQUERADE));
    }
}
