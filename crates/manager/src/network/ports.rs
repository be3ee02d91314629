//! Published ports: what a request asks for, and holding it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use brig_network::{ContainerPort, PortRequest, PortReservation, parse_host_ports};

use super::{Networks, request};
use crate::container::View;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{ContainerRecord, NetworkRecord};
use crate::models::PortBinding;

impl Networks {
    /// Holds the host ports that a container publishes.
    pub(super) fn reserve_ports(
        &self,
        record: &ContainerRecord,
        network: &NetworkRecord,
    ) -> Result<Vec<PortReservation>> {
        let default = match network.config.options.get(request::HOST_BINDING) {
            Some(address) => address.parse().unwrap_or(self.0.config.publish_address),
            None => self.0.config.publish_address,
        };
        let mut reservations = Vec::new();
        for request in port_requests(record, default)? {
            reservations.push(PortReservation::acquire(&request).map_err(|source| {
                let source = self.naming_holder(record, &request, Error::from(source));
                Error::new(
                    source.kind(),
                    format!(
                        "failed to set up container networking: driver failed programming external connectivity on \
                         endpoint {}",
                        record.name
                    ),
                )
                .with_source(source)
            })?);
        }
        Ok(reservations)
    }

    /// Says who has a port that is taken, and what can be done.
    fn naming_holder(&self, record: &ContainerRecord, asked: &PortRequest, error: Error) -> Error {
        let Some(wanted) = asked.host_ports.clone().filter(|_| error.kind() == ErrorKind::Conflict)
        else {
            return error;
        };
        let holds = |view: &View| {
            let endpoints =
                view.record.networks.values().filter_map(|attachment| attachment.endpoint.as_ref());
            let mut ports = endpoints.flat_map(|endpoint| &endpoint.endpoint.ports);
            let taken = ports.any(|port| {
                port.protocol == asked.container.protocol && wanted.contains(&port.host_port)
            });
            taken && view.record.id != record.id
        };
        let holder = self.0.table.views().into_iter().find(|view| holds(view));
        let advice = match holder {
            Some(holder) => format!(
                "container {} has it; stop that one or publish another port",
                holder.record.name
            ),
            None => "a program on this host has it; end that or publish another port".to_owned(),
        };
        Error::new(error.kind(), format!("{} ({advice})", error.report()))
    }
}

/// The host ports that a request publishes, and those of `--publish-all`.
pub(crate) fn port_requests(
    record: &ContainerRecord,
    default_address: IpAddr,
) -> Result<Vec<PortRequest>> {
    let host = &record.host_config;
    let mut requests = Vec::new();
    let mut published = BTreeSet::new();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let container: ContainerPort = port.parse().map_err(Error::from)?;
        published.insert(container);
        for binding in bindings.iter().flatten() {
            requests.push(port_request(container, binding, default_address)?);
        }
    }
    if host.publish_all_ports == Some(true) {
        for port in record.config.exposed_ports.iter().flatten() {
            let container: ContainerPort = port.parse().map_err(Error::from)?;
            if published.insert(container) {
                requests.push(port_request(container, &PortBinding::default(), default_address)?);
            }
        }
    }
    // Fixed ports first, so that a free one chosen for another binding cannot take them.
    requests.sort_by_key(|request| (request.host_ports.is_none(), request.container));
    Ok(requests)
}

fn port_request(
    container: ContainerPort,
    binding: &PortBinding,
    default_address: IpAddr,
) -> Result<PortRequest> {
    let address = binding.host_ip.as_deref().filter(|text| !text.is_empty());
    let host_ip = match address {
        None => default_address,
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid host address to publish on: {text}")))?,
    };
    let host_ports = parse_host_ports(binding.host_port.as_deref().unwrap_or_default())?;
    Ok(PortRequest { host_ip, host_ports, container })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{ContainerConfig, HostConfig};

    fn publishing(bindings: &[(&str, &str, &str)], exposed: &[&str], all: bool) -> ContainerRecord {
        let mut record = ContainerRecord::default();
        let mut ports = std::collections::HashMap::new();
        for (port, ip, host) in bindings {
            let binding =
                PortBinding { host_ip: Some((*ip).into()), host_port: Some((*host).into()) };
            ports
                .entry((*port).to_owned())
                .or_insert_with(|| Some(Vec::new()))
                .get_or_insert_default()
                .push(binding);
        }
        record.host_config = HostConfig {
            port_bindings: Some(ports),
            publish_all_ports: Some(all),
            ..HostConfig::default()
        };
        record.config = ContainerConfig {
            exposed_ports: Some(exposed.iter().map(|port| (*port).to_owned()).collect()),
            ..ContainerConfig::default()
        };
        record
    }

    #[test]
    fn fixed_ports_come_before_chosen_ones() {
        let record = publishing(
            &[("80/tcp", "", ""), ("443", "127.0.0.1", "8443")],
            &["80/tcp", "53/udp"],
            true,
        );
        let requests = port_requests(&record, [0, 0, 0, 0].into()).expect("good");
        assert_eq!(requests.len(), 3);
        assert_eq!(requests[0].host_ports, Some(8443..=8443));
        assert_eq!(requests[0].host_ip.to_string(), "127.0.0.1");
        assert!(requests[1].host_ports.is_none() && requests[2].host_ports.is_none());
    }

    #[test]
    fn malformed_ports_are_refused() {
        for (port, ip, host) in
            [("0/tcp", "", "80"), ("80/sctp", "", "80"), ("80", "x", "80"), ("80", "", "99999")]
        {
            assert!(
                port_requests(&publishing(&[(port, ip, host)], &[], false), [0, 0, 0, 0].into())
                    .is_err()
            );
        }
    }
}
