use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn network(subnet: &str) -> NetworkConfig {
    NetworkConfig::bridge("0123456789abcdef", "web", subnet.parse().unwrap()).unwrap()
}

#[test]
fn names_derive_from_ids() {
    let network = network("10.89.1.0/24");
    assert_eq!(network.bridge_name().as_str(), "br-0123456789ab");
    let a = Endpoint::new("c1", "/run/netns/c1", "10.89.1.2/24".parse().unwrap());
    let b = Endpoint::new("c2", "/run/netns/c2", "10.89.1.3/24".parse().unwrap());
    assert_ne!(a.host_interface(&network), b.host_interface(&network));
    assert_eq!(a.host_interface(&network).as_str().len(), 15);
    assert_eq!(a.mac.to_string(), "02:42:0a:59:01:02");
}

#[test]
fn subnets_that_cannot_work_are_refused() {
    for (subnet, kind) in [
        ("127.0.0.0/24", ErrorKind::InvalidInput),
        ("224.0.0.0/24", ErrorKind::InvalidInput),
        ("0.0.0.0/8", ErrorKind::InvalidInput),
        ("10.0.0.0/31", ErrorKind::InvalidInput),
        ("fd00::/64", ErrorKind::Unsupported),
    ] {
        let error = NetworkConfig::bridge("abc", "web", subnet.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), kind, "{subnet}: {error}");
    }
    let mut config = network("10.0.0.0/24");
    config.subnets[0].gateway = "10.0.1.1".parse().unwrap();
    assert!(config.validate().is_err());
    let mut config = network("10.0.0.0/24");
    config.subnets[0].range = Some("10.0.1.0/25".parse().unwrap());
    assert!(config.validate().is_err());
    let mut config = network("10.0.0.0/24");
    config.mtu = Some(12);
    assert!(config.validate().unwrap_err().to_string().contains("MTU 12"));
}

#[test]
fn endpoints_must_fit_their_network() {
    let network = network("10.0.0.0/24");
    for address in ["10.0.1.2/24", "10.0.0.2/25", "10.0.0.1/24", "10.0.0.0/24", "10.0.0.255/24"] {
        assert!(
            Endpoint::new("c", "/x", address.parse().unwrap()).validate(&network).is_err(),
            "{address}"
        );
    }
    let mut endpoint = Endpoint::new("c", "/x", "10.0.0.2/24".parse().unwrap());
    endpoint.validate(&network).unwrap();
    endpoint.gateway = Some("10.0.0.1".parse().unwrap());
    endpoint.validate(&network).unwrap();
    let internal = NetworkConfig { internal: true, ..network };
    assert!(endpoint.validate(&internal).is_err());
}

#[test]
fn drivers_from_outside_are_a_closed_set() {
    assert_eq!("bridge".parse::<Driver>().unwrap(), Driver::Bridge);
    for name in ["../../bin/sh", "container", "macvlan", "bridge\0"] {
        assert_eq!(name.parse::<Driver>().unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn the_default_route_goes_through_the_first_network_by_name_that_leads_out() {
    let named = |name: &str, internal| NetworkConfig {
        name: name.into(),
        internal,
        ..network("10.0.0.0/24")
    };
    let networks = [named("zoo", false), named("alpha", true), named("beta", false)];
    assert_eq!(Endpoint::gateway_of(&networks).unwrap().name, "beta");
    assert!(Endpoint::gateway_of(&networks[1..2]).is_none());
}

proptest! {
    #[test]
    fn interface_names_hold_their_rules(text in "\\PC{0,20}") {
        if let Ok(name) = InterfaceName::new(text.clone()) {
            prop_assert!(name.as_str().len() <= 15 && !name.as_str().contains(['/', ' ', ':']));
            prop_assert_eq!(name.as_str(), text);
        }
    }

    #[test]
    fn networks_print_as_they_parse(bits in any::<u32>(), prefix in 0_u8..=32) {
        let net = IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), prefix).unwrap();
        prop_assert_eq!(net.to_string().parse::<IpNet>().unwrap(), net);
        prop_assert!(net.contains(net.address()) && net.contains(net.last()));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<IpNet>();
        let _ = text.parse::<MacAddress>();
        let _ = text.parse::<crate::ContainerPort>();
        let _ = crate::parse_host_ports(&text);
    }
}
