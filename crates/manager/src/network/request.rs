//! Network requests, checked and turned into records.

use std::collections::HashMap;
use std::net::IpAddr;

use brig_network::{Driver, InterfaceName, IpNet, NetworkConfig, Subnet};

use crate::config::Config;
use crate::container::now;
use crate::error::{Error, Result};
use crate::metadata::NetworkRecord;
use crate::models::NetworkCreateRequest;
use crate::name;

/// Option: the bridge's link name.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Option: containers of the network may speak to each other.
const ICC: &str = "com.docker.network.bridge.enable_icc";
/// Option: outgoing packets get the host's address.
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Option: the address that published ports bind when the request names none.
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Option: maximum transmission unit.
const MTU: &str = "com.docker.network.driver.mtu";

fn empty(name: &str, driver: Driver) -> NetworkRecord {
    NetworkRecord {
        config: NetworkConfig {
            id: name::new_id(),
            name: name.to_owned(),
            driver,
            bridge: None,
            subnets: Vec::new(),
            mtu: None,
            internal: false,
            inter_container: true,
            masquerade: true,
            options: Default::default(),
        },
        created_at: now(),
        attachable: false,
        labels: HashMap::new(),
        subnet_requested: false,
        predefined: false,
    }
}

/// A network that every engine has.
pub(super) fn predefined(config: &Config, name: &str, driver: Driver) -> Result<NetworkRecord> {
    let mut record = empty(name, driver);
    record.predefined = true;
    if driver == Driver::Bridge {
        record.config.bridge = Some(InterfaceName::new(config.bridge.clone())?);
        if let Some(address) = &config.bridge_address {
            let address: IpNet = address.parse().map_err(Error::from)?;
            let mut subnets = subnets(address.network())?;
            subnets[0].gateway = address.address();
            record.config.subnets = subnets;
            record.subnet_requested = true;
        }
    }
    Ok(record)
}

/// One subnet whose first address is the gateway.
pub(super) fn subnets(network: IpNet) -> Result<Vec<Subnet>> {
    let gateway = network
        .nth(1)
        .ok_or_else(|| Error::invalid(format!("subnet {network} has no room for a gateway")))?;
    Ok(vec![Subnet { network, gateway, range: None }])
}

/// Checks a create request.
pub(super) fn parse(request: NetworkCreateRequest) -> Result<NetworkRecord> {
    let name = check_name(&request.name)?;
    refuse(&request)?;
    let driver: Driver =
        request.driver.as_deref().unwrap_or("bridge").parse().map_err(Error::from)?;
    if driver != Driver::Bridge {
        return Err(Error::new(
            crate::ErrorKind::Denied,
            format!("only one instance of \"{}\" network is allowed", driver.name()),
        ));
    }
    let mut record = empty(name, driver);
    record.config.internal = request.internal.unwrap_or(false);
    record.attachable = request.attachable.unwrap_or(false);
    record.labels = request.labels.unwrap_or_default();
    options(&mut record.config, request.options.unwrap_or_default())?;
    for config in request.ipam.and_then(|ipam| ipam.config).unwrap_or_default() {
        if let Some(subnet) = parse_subnet(&config)? {
            record.config.subnets.push(subnet);
            record.subnet_requested = true;
        }
    }
    record.config.subnets.iter().try_for_each(Subnet::validate)?;
    Ok(record)
}

fn check_name(name: &str) -> Result<&str> {
    let parsed = name::parse_network(name);
    let reserved =
        ["bridge", "host", "none", "default"].contains(&name) || name.starts_with("container:");
    match parsed {
        Some(name) if !reserved => Ok(name),
        Some(_) => Err(Error::new(
            crate::ErrorKind::Denied,
            format!("operation is not permitted on predefined {name} network"),
        )),
        None => Err(Error::invalid(format!(
            "invalid network name \"{name}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
    }
}

fn refuse(request: &NetworkCreateRequest) -> Result<()> {
    let refused = [
        ("IPv6 networks", request.enable_ipv6 == Some(true)),
        ("networks without IPv4", request.enable_ipv4 == Some(false)),
        ("ingress networks", request.ingress == Some(true)),
        ("config-only networks", request.config_only == Some(true)),
        (
            "config-from networks",
            request
                .config_from
                .as_ref()
                .and_then(|from| from.network.as_deref())
                .is_some_and(|name| !name.is_empty()),
        ),
        (
            "scopes other than local",
            request.scope.as_deref().is_some_and(|scope| !scope.is_empty() && scope != "local"),
        ),
        (
            "IPAM drivers other than default",
            request
                .ipam
                .as_ref()
                .and_then(|ipam| ipam.driver.as_deref())
                .is_some_and(|driver| !driver.is_empty() && driver != "default"),
        ),
    ];
    match refused.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(Error::unsupported(format!("{what} are not built"))),
        None => Ok(()),
    }
}

fn options(config: &mut NetworkConfig, options: HashMap<String, String>) -> Result<()> {
    for (key, value) in options {
        let wrong = || Error::invalid(format!("invalid value {value:?} for network option {key}"));
        match key.as_str() {
            BRIDGE_NAME => config.bridge = Some(InterfaceName::new(value.clone())?),
            ICC => config.inter_container = value.parse().map_err(|_| wrong())?,
            MASQUERADE => config.masquerade = value.parse().map_err(|_| wrong())?,
            MTU => config.mtu = Some(value.parse().map_err(|_| wrong())?),
            HOST_BINDING => drop(value.parse::<IpAddr>().map_err(|_| wrong())?),
            _ => return Err(Error::unsupported(format!("network option {key} is not built"))),
        }
        config.options.insert(key, value);
    }
    Ok(())
}

fn parse_subnet(config: &crate::models::IpamConfig) -> Result<Option<Subnet>> {
    if config.auxiliary_addresses.as_ref().is_some_and(|addresses| !addresses.is_empty()) {
        return Err(Error::unsupported("auxiliary addresses of a network are not built"));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(subnet) = given(&config.subnet) else {
        if given(&config.gateway).is_some() || given(&config.ip_range).is_some() {
            return Err(Error::invalid("a gateway or an IP range needs a subnet"));
        }
        return Ok(None);
    };
    let network: IpNet = subnet.parse().map_err(Error::from)?;
    let mut subnet = subnets(network)?.remove(0);
    if let Some(gateway) = given(&config.gateway) {
        subnet.gateway = gateway
            .parse()
            .map_err(|_| Error::invalid(format!("invalid gateway address {gateway}")))?;
    }
    subnet.range =
        given(&config.ip_range).map(|range| range.parse()).transpose().map_err(Error::from)?;
    Ok(Some(subnet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Ipam, IpamConfig};

    fn request(name: &str) -> NetworkCreateRequest {
        NetworkCreateRequest { name: name.into(), ..NetworkCreateRequest::default() }
    }

    #[test]
    fn a_plain_request_is_a_bridge_without_a_subnet_yet() {
        let record = parse(request("backend")).expect("good");
        assert_eq!(record.config.driver, Driver::Bridge);
        assert!(record.config.subnets.is_empty() && !record.subnet_requested);
    }

    #[test]
    fn subnets_and_options_are_taken_over() {
        let mut asked = request("backend");
        let config = IpamConfig {
            subnet: Some("10.9.0.0/24".into()),
            gateway: Some("10.9.0.254".into()),
            ..IpamConfig::default()
        };
        asked.ipam = Some(Ipam { config: Some(vec![config]), ..Ipam::default() });
        asked.options = Some(
            [(MTU.to_owned(), "1400".to_owned()), (ICC.to_owned(), "false".to_owned())].into(),
        );
        let record = parse(asked).expect("good");
        assert_eq!(record.config.subnets[0].gateway.to_string(), "10.9.0.254");
        assert_eq!(record.config.mtu, Some(1400));
        assert!(!record.config.inter_container && record.subnet_requested);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for name in ["bridge", "host", "none", "container:x", "", "a b", "/web"] {
            assert!(parse(request(name)).is_err(), "{name}");
        }
        let driver = NetworkCreateRequest { driver: Some("../../bin/sh".into()), ..request("n1") };
        assert!(parse(driver).is_err());
        let v6 = NetworkCreateRequest { enable_ipv6: Some(true), ..request("n1") };
        assert!(parse(v6).expect_err("not built").report().contains("IPv6"));
        let option = NetworkCreateRequest {
            options: Some([("x".to_owned(), "y".to_owned())].into()),
            ..request("n1")
        };
        assert!(parse(option).expect_err("not built").report().contains('x'));
    }
}
