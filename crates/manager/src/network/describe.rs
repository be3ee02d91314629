//! Networks as the Engine API shows them.

use std::collections::HashMap;

use brig_network::Driver;

use super::Member;
use crate::metadata::NetworkRecord;
use crate::models::{ConfigReference, EndpointResource, Ipam, IpamConfig, Network, NetworkInspect};

pub(super) fn network(record: &NetworkRecord) -> Network {
    let config = &record.config;
    Network {
        name: Some(config.name.clone()),
        id: Some(config.id.clone()),
        created: Some(record.created_at.clone()),
        scope: Some("local".into()),
        driver: Some(config.driver.name().into()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(ipam(record)),
        internal: Some(config.internal),
        attachable: Some(record.attachable),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        options: Some(options(record)),
        labels: Some(record.labels.clone()),
        peers: None,
    }
}

pub(super) fn inspect<'a>(
    record: &NetworkRecord,
    members: impl Iterator<Item = (&'a String, &'a Member)>,
) -> NetworkInspect {
    let containers =
        members.map(|(container, member)| (container.clone(), resource(member))).collect();
    let Network {
        name, id, created, scope, driver, enable_ipv4, enable_ipv6, ipam, internal, ..
    } = network(record);
    NetworkInspect {
        name,
        id,
        created,
        scope,
        driver,
        enable_ipv4,
        enable_ipv6,
        ipam,
        internal,
        attachable: Some(record.attachable),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        options: Some(options(record)),
        labels: Some(record.labels.clone()),
        peers: None,
        containers: Some(containers),
        services: None,
        status: None,
    }
}

fn resource(member: &Member) -> EndpointResource {
    EndpointResource {
        name: Some(member.container_name.clone()),
        endpoint_id: Some(member.id.clone()),
        mac_address: Some(member.endpoint.mac.to_string()),
        ipv4_address: Some(member.endpoint.address.to_string()),
        ipv6_address: Some(String::new()),
    }
}

fn ipam(record: &NetworkRecord) -> Ipam {
    let config = record
        .config
        .subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: Some(subnet.network.to_string()),
            gateway: Some(subnet.gateway.to_string()),
            ip_range: subnet.range.map(|range| range.to_string()),
            auxiliary_addresses: None,
        })
        .collect();
    Ipam { driver: Some("default".into()), config: Some(config), options: None }
}

/// The request's options, and for the default bridge those that docker always shows.
fn options(record: &NetworkRecord) -> HashMap<String, String> {
    let mut options: HashMap<String, String> = record.config.options.clone().into_iter().collect();
    if record.predefined && record.config.driver == Driver::Bridge {
        let shown = [
            ("com.docker.network.bridge.default_bridge", "true".to_owned()),
            ("com.docker.network.bridge.enable_icc", record.config.inter_container.to_string()),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                record.config.masquerade.to_string(),
            ),
            ("com.docker.network.bridge.name", record.config.bridge_name().to_string()),
        ];
        options.extend(shown.map(|(key, value)| (key.to_owned(), value)));
    }
    options
}
