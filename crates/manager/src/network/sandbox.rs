//! A container's network: its namespace, its endpoints, its published ports, its name server.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use brig_network::dns::{External, Zone};
use brig_network::{
    ContainerPort, Driver, Endpoint, InterfaceName, MacAddress, PortMapping, PortRequest,
    PortReservation,
};
use tokio::sync::watch;

use super::dns_server::{self, Server};
use super::{Member, Networks, State, bridges};
use crate::blocking;
use crate::container::{Hosts, Namespace, ResolvConf};
use crate::error::{Error, Failures, Result};
use crate::failpoint;
use crate::metadata::{Attachment, ContainerRecord, EndpointRecord, NetworkRecord, Write};
use crate::models::EndpointSettings;
use crate::name;

/// A container may be in this many networks.
const NETWORKS_MAX: usize = 64;

/// What keeps a running container's network alive in this process. Dropping it gives ports and sockets back.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) namespace: Namespace,
    pub(crate) hosts: Hosts,
    pub(crate) resolv_conf: ResolvConf,
    _reservations: Vec<PortReservation>,
    _server: Option<Server>,
}

impl Networks {
    /// Sets up the network of a container that is about to start, and fills in its endpoints.
    pub(crate) async fn prepare(&self, record: &mut ContainerRecord) -> Result<Joined> {
        let mode = record.host_config.network_mode.clone().unwrap_or_default();
        if let Some(other) = mode.strip_prefix("container:") {
            return self.prepare_shared(record, other);
        }
        if mode == "host" {
            return Ok(self.join_host(record));
        }
        let netns = self.namespaces().join(&record.id);
        let path = netns.clone();
        blocking::run(move || {
            crate::container::make_directory(path.parent().unwrap_or(&path))?;
            brig_network::netns::create(&path).map_err(Error::from)
        })
        .await?;
        failpoint::hit("netns-made")?;
        let changing = self.0.changes.read().await;
        let reservations = self.allocate(record, &netns)?;
        // The record owns the links before they are made.
        self.0.metadata.put_container(record, Write::Durable).await?;
        failpoint::hit("endpoints-recorded")?;
        self.connect_all(record).await?;
        drop(changing);
        failpoint::hit("links-made")?;
        let mut joined = self.describe(record, &netns, Some(netns.clone())).await?;
        joined._reservations = reservations;
        Ok(joined)
    }

    /// Takes up the network of a container that kept running while the engine was away.
    pub(crate) async fn adopt(&self, record: &ContainerRecord) -> Joined {
        let netns = self.namespaces().join(&record.id);
        let mut reservations = Vec::new();
        for attachment in record.networks.values() {
            let Some(endpoint) = &attachment.endpoint else { continue };
            self.enter(record, attachment, endpoint);
            for port in &endpoint.endpoint.ports {
                let request = PortRequest {
                    host_ip: port.host_ip,
                    host_ports: Some(port.host_port..=port.host_port),
                    container: ContainerPort { port: port.container_port, protocol: port.protocol },
                };
                match PortReservation::acquire(&request) {
                    Ok(reservation) => reservations.push(reservation),
                    Err(error) => {
                        let report = Error::from(error).report();
                        tracing::warn!(container = %record.id, "hold published port {port} again: {report}");
                    }
                }
            }
        }
        let own = record.networks.values().any(|attachment| attachment.endpoint.is_some());
        let described = self.describe(record, &netns, own.then(|| netns.clone())).await;
        let mut joined = described.unwrap_or_else(|error| {
            tracing::warn!(container = %record.id, "take up the name server again: {}", error.report());
            Joined::default()
        });
        joined._reservations = reservations;
        joined
    }

    /// The host's network, whose resolver a container may still override.
    fn join_host(&self, record: &ContainerRecord) -> Joined {
        Joined {
            namespace: Namespace::Host,
            hosts: Hosts::Host,
            resolv_conf: self.resolv_conf(record, ResolvConf::of_host()),
            ..Joined::default()
        }
    }

    /// The network of another container.
    fn prepare_shared(&self, record: &ContainerRecord, other: &str) -> Result<Joined> {
        let view = self.0.table.find(other)?.view();
        if !view.record.state.phase.is_alive() {
            return Err(Error::conflict(format!(
                "cannot join network of a non running container: {}",
                view.record.id
            )));
        }
        let mode = view.record.host_config.network_mode.clone().unwrap_or_default();
        if mode == "host" {
            return Ok(self.join_host(record));
        }
        if mode.starts_with("container:") {
            return Err(Error::conflict(format!(
                "container {other} has no network of its own to share; name the container that has"
            )));
        }
        let netns = self.namespaces().join(&view.record.id);
        let resolv_conf = self.resolver_of(&view.record);
        let hosts = Hosts::Lines(host_lines(&view.record));
        Ok(Joined { namespace: Namespace::Join(netns), hosts, resolv_conf, ..Joined::default() })
    }

    /// Chooses addresses and host ports and enters the endpoints in record and state.
    fn allocate(
        &self,
        record: &mut ContainerRecord,
        netns: &std::path::Path,
    ) -> Result<Vec<PortReservation>> {
        let networks = self.networks_of(record)?;
        let gateway =
            Endpoint::gateway_of(bridges(networks.iter())).map(|config| config.id.clone());
        let publisher = gateway
            .clone()
            .or_else(|| bridges(networks.iter()).first().map(|config| config.id.clone()));
        let mut reservations = Vec::new();
        for (index, network) in
            (0_u16..).zip(networks.iter().filter(|network| network.config.driver == Driver::Bridge))
        {
            let config = &network.config;
            let mut ports = Vec::new();
            if publisher.as_ref() == Some(&config.id) && !config.internal {
                reservations = self.reserve_ports(record, network)?;
                ports = reservations.iter().map(PortReservation::mapping).collect();
            }
            let gateway = gateway.as_ref() == Some(&config.id);
            self.allocate_one(record, network, netns, Place { index, ports, gateway })?;
        }
        Ok(reservations)
    }

    fn networks_of(&self, record: &ContainerRecord) -> Result<Vec<NetworkRecord>> {
        let state = self.state();
        record.networks.keys().map(|name| state.find(name).cloned()).collect()
    }

    /// Gives the container an address in one network.
    fn allocate_one(
        &self,
        record: &mut ContainerRecord,
        network: &NetworkRecord,
        netns: &std::path::Path,
        place: Place,
    ) -> Result<()> {
        let config = &network.config;
        let subnet = config.subnet()?;
        let attachment = record.networks.get(&config.name).cloned().unwrap_or_default();
        let mut state = self.state();
        if !state.networks.contains_key(&config.id) {
            return Err(Error::not_found(format!("network {} not found", config.name)));
        }
        let used: BTreeSet<IpAddr> = state
            .members(&config.id)
            .map(|(_, member)| member.endpoint.address.address())
            .collect();
        let address = match requested_address(&attachment.settings)? {
            Some(address) => brig_network::ipam::require_address(subnet, &used, address)?,
            None => {
                brig_network::ipam::allocate(subnet, &used, state.last.get(&config.id).copied())?
            }
        };
        let mut endpoint = Endpoint::new(&record.id, netns, address);
        endpoint.interface = InterfaceName::ethernet(place.index);
        endpoint.gateway = place.gateway.then_some(subnet.gateway);
        endpoint.ports = place.ports;
        if let Some(mac) = attachment.settings.mac_address.as_deref().filter(|mac| !mac.is_empty())
        {
            endpoint.mac = mac.parse::<MacAddress>().map_err(Error::from)?;
        }
        state.last.insert(config.id.clone(), address.address());
        let endpoint =
            EndpointRecord { id: name::new_id(), network_id: config.id.clone(), endpoint };
        state
            .endpoints
            .insert((config.id.clone(), record.id.clone()), member(record, &attachment, &endpoint));
        drop(state);
        let attachment = Attachment { endpoint: Some(endpoint), ..attachment };
        record.networks.insert(config.name.clone(), attachment);
        Ok(())
    }

    fn enter(&self, record: &ContainerRecord, attachment: &Attachment, endpoint: &EndpointRecord) {
        let key = (endpoint.network_id.clone(), record.id.clone());
        self.state().endpoints.insert(key, member(record, attachment, endpoint));
    }

    async fn connect_all(&self, record: &ContainerRecord) -> Result<()> {
        for attachment in record.networks.values() {
            if let Some(endpoint) = &attachment.endpoint {
                self.connect_one(record, endpoint).await?;
            }
        }
        Ok(())
    }

    async fn connect_one(&self, record: &ContainerRecord, endpoint: &EndpointRecord) -> Result<()> {
        let network = self.find(&endpoint.network_id)?;
        let (config, place) = (network.config.clone(), endpoint.endpoint.clone());
        self.library(move |library| library.connect(&config, &place).map_err(Error::from)).await?;
        self.refresh_zones(&endpoint.network_id);
        self.publish("connect", &network, Some(&record.id));
        Ok(())
    }

    /// Takes down all endpoints of a container that ended, and its namespace.
    pub(crate) async fn release(&self, record: &mut ContainerRecord) -> Result<()> {
        let mut failures = Failures::default();
        let names: Vec<String> = record.networks.keys().cloned().collect();
        for network in names {
            failures.note(self.release_one(record, &network).await);
        }
        self.state().zones.remove(&record.id);
        let netns = self.namespaces().join(&record.id);
        failures.note(
            blocking::run(move || brig_network::netns::remove(&netns).map_err(Error::from)).await,
        );
        failures.into_result(&format!("release the network of container {}", record.id))
    }

    async fn release_one(&self, record: &mut ContainerRecord, network: &str) -> Result<()> {
        let Some(attachment) = record.networks.get_mut(network) else { return Ok(()) };
        let Some(endpoint) = attachment.endpoint.take() else { return Ok(()) };
        let _changing = self.0.changes.read().await;
        self.state().endpoints.remove(&(endpoint.network_id.clone(), record.id.clone()));
        let Ok(network) = self.find(&endpoint.network_id) else { return Ok(()) };
        let config = network.config.clone();
        let disconnected = self
            .library(move |library| {
                library.disconnect(&config, &endpoint.endpoint).into_result().map_err(Error::from)
            })
            .await;
        self.refresh_zones(&network.config.id);
        self.publish("disconnect", &network, Some(&record.id));
        disconnected
    }

    /// Forgets a container that is being removed.
    pub(crate) async fn forget(&self, record: &mut ContainerRecord) -> Result<()> {
        self.release(record).await
    }

    /// A container has another name.
    pub(crate) async fn rename(&self, record: &ContainerRecord) {
        for attachment in record.networks.values() {
            if let Some(endpoint) = &attachment.endpoint {
                self.enter(record, attachment, endpoint);
                self.refresh_zones(&endpoint.network_id);
            }
        }
    }

    /// Adds a network to a container, running or not.
    pub(crate) async fn join(
        &self,
        record: &mut ContainerRecord,
        network: &str,
        settings: EndpointSettings,
        running: bool,
    ) -> Result<()> {
        let network = self.find(network)?;
        let name = network.config.name.clone();
        let mode = record.host_config.network_mode.clone().unwrap_or_default();
        if mode == "host"
            || mode.starts_with("container:")
            || network.config.driver != Driver::Bridge
        {
            return Err(Error::conflict(format!(
                "container sharing network namespace with another container or host cannot be connected to any other \
                 network ({name})"
            )));
        }
        if record.networks.contains_key(&name) {
            return Err(Error::new(
                crate::ErrorKind::Denied,
                format!("endpoint with name {} already exists in network {name}", record.name),
            ));
        }
        if record.networks.len() >= NETWORKS_MAX {
            return Err(Error::invalid(format!(
                "a container can be in at most {NETWORKS_MAX} networks"
            )));
        }
        check_settings(&name, &settings)?;
        record.networks.insert(name.clone(), Attachment { settings, endpoint: None });
        record.networks.remove("none");
        if !running {
            return Ok(());
        }
        let joined = self.join_running(record, &network).await;
        if joined.is_err() {
            let undone = self.release_one(record, &name).await;
            if let Err(error) = undone {
                tracing::warn!(container = %record.id, "undo a failed connect: {}", error.report());
            }
            record.networks.remove(&name);
        }
        joined
    }

    async fn join_running(
        &self,
        record: &mut ContainerRecord,
        network: &NetworkRecord,
    ) -> Result<()> {
        let _changing = self.0.changes.read().await;
        let netns = self.namespaces().join(&record.id);
        let taken: BTreeSet<String> =
            endpoints(record).map(|endpoint| endpoint.endpoint.interface.to_string()).collect();
        let free = |index: &u16| !taken.contains(InterfaceName::ethernet(*index).as_str());
        let index = (0..u16::MAX).find(free).unwrap_or(0);
        let gateway = !network.config.internal
            && endpoints(record).all(|endpoint| endpoint.endpoint.gateway.is_none());
        self.allocate_one(record, network, &netns, Place { index, ports: Vec::new(), gateway })?;
        self.0.metadata.put_container(record, Write::Durable).await?;
        let endpoint = record
            .networks
            .get(&network.config.name)
            .and_then(|attachment| attachment.endpoint.clone());
        match endpoint {
            Some(endpoint) => self.connect_one(record, &endpoint).await,
            None => Ok(()),
        }
    }

    /// Takes a network off a container, running or not.
    pub(crate) async fn leave(&self, record: &mut ContainerRecord, network: &str) -> Result<()> {
        let attachment = record.networks.get(network).ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Denied,
                format!("container {} is not connected to network {network}", record.id),
            )
        })?;
        let had_route = attachment
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.endpoint.gateway.is_some());
        let left = self.release_one(record, network).await;
        record.networks.remove(network);
        if had_route {
            self.move_default_route(record).await?;
        }
        left
    }

    /// The network with the default route is gone; the next one takes over.
    async fn move_default_route(&self, record: &mut ContainerRecord) -> Result<()> {
        let networks = self.networks_of(record)?;
        let Some(config) = Endpoint::gateway_of(bridges(networks.iter())).cloned() else {
            return Ok(());
        };
        let Some(endpoint) =
            record.networks.get_mut(&config.name).and_then(|found| found.endpoint.as_mut())
        else {
            return Ok(());
        };
        endpoint.endpoint.gateway = Some(config.subnet()?.gateway);
        let place = endpoint.endpoint.clone();
        self.library(move |library| library.set_default_route(&place).map_err(Error::from)).await
    }

    /// What the container is told about names, and the server that answers it.
    async fn describe(
        &self,
        record: &ContainerRecord,
        netns: &std::path::Path,
        serve_in: Option<PathBuf>,
    ) -> Result<Joined> {
        let mut joined = Joined {
            namespace: Namespace::Join(netns.to_owned()),
            hosts: Hosts::Lines(host_lines(record)),
            resolv_conf: self.resolver_of(record),
            ..Joined::default()
        };
        if let Some(netns) = serve_in.filter(|_| self.has_name_server(record)) {
            let upstream = self.resolv_conf(record, ResolvConf::of_host()).servers;
            let sockets =
                blocking::run(move || brig_network::dns::bind(&netns).map_err(Error::from)).await?;
            let (sender, zones) = watch::channel(Arc::new(Zone::default()));
            self.state().zones.insert(record.id.clone(), sender);
            self.refresh_zone(&record.id);
            joined._server = Some(dns_server::spawn(&self.0.tasks, sockets, zones, upstream)?);
        }
        Ok(joined)
    }

    /// Containers in networks of the user's find each other by name. On the default bridge a server is only needed
    /// where the host's own are on its loopback, which a container cannot reach.
    fn has_name_server(&self, record: &ContainerRecord) -> bool {
        let user_defined =
            endpoints(record).any(|endpoint| !self.is_default_bridge(&endpoint.network_id));
        let servers = self.resolv_conf(record, ResolvConf::of_host()).servers;
        let unreachable =
            endpoints(record).next().is_some() && servers.iter().all(IpAddr::is_loopback);
        user_defined || unreachable
    }

    fn is_default_bridge(&self, network: &str) -> bool {
        self.state().networks.get(network).is_some_and(|record| record.predefined)
    }

    fn resolver_of(&self, record: &ContainerRecord) -> ResolvConf {
        let mut resolv_conf = self.resolv_conf(record, ResolvConf::of_host());
        if self.has_name_server(record) {
            resolv_conf.servers = vec![brig_network::dns::ADDRESS.into()];
            if !resolv_conf.options.iter().any(|option| option.starts_with("ndots:")) {
                resolv_conf.options.push("ndots:0".into());
            }
        }
        resolv_conf
    }

    /// The request's settings, else the engine's, else the host's.
    fn resolv_conf(&self, record: &ContainerRecord, host: ResolvConf) -> ResolvConf {
        let (asked, config) = (&record.host_config, &self.0.config);
        let pick =
            |asked: &Option<Vec<String>>, configured: &[String], host: Vec<String>| match asked {
                Some(list) if !list.is_empty() => {
                    list.iter().filter(|text| *text != ".").cloned().collect()
                }
                _ if !configured.is_empty() => configured.to_vec(),
                _ => host,
            };
        let servers: Vec<IpAddr> =
            asked.dns.iter().flatten().filter_map(|server| server.parse().ok()).collect();
        ResolvConf {
            servers: match (servers.is_empty(), config.dns.is_empty()) {
                (false, _) => servers,
                (true, false) => config.dns.clone(),
                (true, true) => host.servers,
            },
            search: pick(&asked.dns_search, &config.dns_search, host.search),
            options: pick(&asked.dns_options, &config.dns_options, host.options),
        }
    }

    /// Tells the name servers of a network's containers what changed.
    fn refresh_zones(&self, network: &str) {
        let containers: Vec<String> =
            self.state().members(network).map(|(container, _)| container.clone()).collect();
        for container in containers {
            self.refresh_zone(&container);
        }
    }

    fn refresh_zone(&self, container: &str) {
        let state = self.state();
        if let Some(sender) = state.zones.get(container) {
            sender.send_replace(Arc::new(zone(&state, container)));
        }
    }
}

/// How a container takes part in a network.
struct Place {
    index: u16,
    ports: Vec<PortMapping>,
    gateway: bool,
}

fn endpoints(record: &ContainerRecord) -> impl Iterator<Item = &EndpointRecord> {
    record.networks.values().filter_map(|attachment| attachment.endpoint.as_ref())
}

fn member(record: &ContainerRecord, attachment: &Attachment, endpoint: &EndpointRecord) -> Member {
    let mut names = vec![record.name.clone()];
    names.extend(attachment.settings.aliases.clone().unwrap_or_default());
    names.push(name::short(&record.id).to_owned());
    names.extend(record.config.hostname.clone().filter(|hostname| !hostname.is_empty()));
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Member {
        id: endpoint.id.clone(),
        container_name: record.name.clone(),
        names,
        endpoint: endpoint.endpoint.clone(),
    }
}

/// What a container can resolve: everyone in its networks but the default bridge.
fn zone(state: &State, container: &str) -> Zone {
    let networks: Vec<&NetworkRecord> = state
        .endpoints
        .keys()
        .filter(|(_, id)| id == container)
        .filter_map(|(network, _)| state.networks.get(network))
        .collect();
    let leads_out = networks.iter().any(|network| !network.config.internal);
    let mut zone = Zone::new(if leads_out { External::Forwarded } else { External::Unknown });
    for network in networks.into_iter().filter(|network| !network.predefined) {
        for (_, member) in state.members(&network.config.id) {
            for name in &member.names {
                // A name that cannot stand in a query is one that nobody asks for.
                let _ = zone.insert(name, member.endpoint.address.address());
            }
        }
    }
    zone
}

fn host_lines(record: &ContainerRecord) -> Vec<(IpAddr, Vec<String>)> {
    let hostname = record.config.hostname.clone().unwrap_or_default();
    let domain = record.config.domainname.clone().filter(|domain| !domain.is_empty());
    let names: Vec<String> = match domain {
        Some(domain) => vec![format!("{hostname}.{domain}"), hostname],
        None => vec![hostname],
    };
    endpoints(record).map(|endpoint| (endpoint.address(), names.clone())).collect()
}

/// The address that a request asks for in a network.
fn requested_address(settings: &EndpointSettings) -> Result<Option<IpAddr>> {
    let text = settings.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_deref());
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse::<std::net::Ipv4Addr>()
            .map(|address| Some(address.into()))
            .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}"))),
    }
}

/// Refuses by name what an endpoint cannot have.
pub(crate) fn check_settings(network: &str, settings: &EndpointSettings) -> Result<()> {
    requested_address(settings)?;
    let ipam = settings.ipam_config.as_ref();
    let refused = [
        (
            "an IPv6 address",
            ipam.and_then(|ipam| ipam.ipv6_address.as_deref()).is_some_and(|text| !text.is_empty()),
        ),
        (
            "link-local addresses",
            ipam.and_then(|ipam| ipam.link_local_ips.as_ref()).is_some_and(|list| !list.is_empty()),
        ),
        ("links", settings.links.as_ref().is_some_and(|links| !links.is_empty())),
        (
            "driver options",
            settings.driver_opts.as_ref().is_some_and(|options| !options.is_empty()),
        ),
        ("a gateway priority", settings.gw_priority.is_some_and(|priority| priority != 0)),
    ];
    match refused.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => {
            Err(Error::unsupported(format!("{what} in network {network}: not built")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_settings_that_are_not_built_are_refused_by_name() {
        let settings =
            EndpointSettings { links: Some(vec!["a:b".into()]), ..EndpointSettings::default() };
        assert!(check_settings("n", &settings).expect_err("not built").report().contains("links"));
    }
}
