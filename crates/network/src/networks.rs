//! Putting networks and endpoints into the kernel, and taking them out again.

mod diagnosis;
mod repair;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_linux::ErrorKind as LinuxErrorKind;
use brig_linux::netlink::{Batch, Protocol, Socket};
use tracing::warn;

pub use self::diagnosis::{Problem, ProblemKind};
use crate::ipam::Occupied;
use crate::nft::{self, Data, Element, MessageType};
use crate::route::{Link, Routes, VethPair};
use crate::{
    Driver, Endpoint, Error, ErrorKind, InterfaceName, IpNet, MacAddress, NetworkConfig, Result,
    conntrack, firewall, netns, sysctl,
};

/// What Ethernet gives a host without a default route to take it from.
const MTU_DEFAULT: u32 = 1500;
/// Keeps table names and link aliases short.
const INSTANCE_NAME_MAX: usize = 32;

/// The name by which one engine's kernel objects are told from another's on the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance {
    name: String,
}

impl Instance {
    /// An instance of this name: the name of its nft table, and a part of its links' aliases.
    ///
    /// # Errors
    /// `InvalidInput` unless it is 1 to 32 letters, digits, `-` or `_`, beginning with a letter.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !first || name.len() > INSTANCE_NAME_MAX || !name.bytes().all(good) {
            return Err(Error::invalid(format!(
                "name a network instance \"{}\": want a letter, then letters, digits, '-' or '_', at most {INSTANCE_NAME_MAX}",
                name.escape_debug()
            )));
        }
        Ok(Self { name })
    }

    /// The name of its nft table in family inet.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.name
    }

    fn alias_prefix(&self) -> String {
        format!("brig:{}:", self.name)
    }
}

/// A network with the endpoints that are connected to it, for [`Networks::sync`] and [`Networks::sweep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkState {
    /// The network.
    pub network: NetworkConfig,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// How the links of an instance differ from what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkComparison {
    /// Names of links of the instance that belong to nothing known.
    pub strays: Vec<String>,
    /// Names of networks whose bridge is missing.
    pub missing_bridges: Vec<String>,
}

/// The outcome of taking something down: everything was tried, these steps failed.
#[derive(Debug, Default)]
#[must_use = "leftovers must be reported"]
pub struct Teardown {
    /// What was removed, in words, where that is not obvious from the request.
    pub removed: Vec<String>,
    /// The failed steps, in order.
    pub errors: Vec<Error>,
}

impl Teardown {
    /// Turns the first failure into an error, for callers who need no more.
    ///
    /// # Errors
    /// The first failed step.
    pub fn into_result(self) -> Result<()> {
        self.errors.into_iter().next().map_or(Ok(()), Err)
    }

    fn attempt(&mut self, step: Result<()>) {
        if let Err(error) = step {
            self.errors.push(error);
        }
    }
}

/// The networks of one instance, in the network namespace of the calling thread.
///
/// Holds no state but the lock that keeps changes of the firewall apart: the kernel is the state. An operation on a
/// network must not run beside another one on the same network; all else may run at once. [`sync`](Self::sync) replaces
/// everything and must be the only one.
#[derive(Debug)]
pub struct Networks {
    instance: Instance,
    firewall: Mutex<()>,
}

impl Networks {
    /// Takes the instance's objects in hand without touching the kernel.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        Self { instance, firewall: Mutex::new(()) }
    }

    /// The subnets that this host's routes and addresses use, for [`ipam::choose_subnet`](crate::ipam::choose_subnet).
    ///
    /// # Errors
    /// What netlink reports.
    pub fn occupied(&self) -> Result<Vec<Occupied>> {
        Routes::open()?.occupied()
    }

    /// Creates a network: its rules, then its bridge. Creating it again repairs it. Networks that are not bridges need
    /// nothing. Enables IPv4 forwarding on the host unless the network is internal.
    ///
    /// # Errors
    /// `InvalidInput` and `Unsupported` as [`NetworkConfig::validate`]; `Conflict` when the bridge's name is taken;
    /// else what the kernel reports. What was made before the failure is removed.
    pub fn create(&self, network: &NetworkConfig) -> Result<()> {
        network.validate()?;
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let mut routes = Routes::open()?;
        let existing = routes.link(&network.bridge_name())?;
        let existed = existing.is_some();
        let done = self.create_bridge(&mut routes, network, existing);
        if done.is_err() && !existed {
            for error in self.remove(network).errors {
                warn!(network = network.id, %error, "cannot undo a failed network");
            }
        }
        done
    }

    fn create_bridge(
        &self,
        routes: &mut Routes,
        network: &NetworkConfig,
        existing: Option<Link>,
    ) -> Result<()> {
        let name = network.bridge_name();
        let subnet = network.subnet()?;
        let (link, ours) = match existing {
            Some(link) => {
                let ours = self.require_usable(network, &link)?;
                (link, ours)
            }
            None => {
                let mtu = match network.mtu {
                    Some(mtu) => mtu,
                    None => routes.default_route_mtu()?.unwrap_or(MTU_DEFAULT),
                };
                routes.create_bridge(&name, MacAddress::derived_from(subnet.gateway), mtu)?;
                let link = routes.link(&name)?.ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        format!("create bridge {name}: somebody removed it at once"),
                    )
                })?;
                (link, true)
            }
        };
        if ours {
            routes.set_alias(link.index, &self.bridge_alias(network))?;
        }
        // The rules stand before anything can pass.
        let elements = firewall::network_elements(network)?;
        self.change_firewall(|batch, table| nft::add_elements(batch, table, &elements))?;
        if !network.internal {
            sysctl::enable_forwarding()?;
        }
        sysctl::disable_ipv6(&name)?;
        routes.add_address(link.index, IpNet::new(subnet.gateway, subnet.network.prefix())?)?;
        routes.set_up(link.index, &name)
    }

    /// Whether an existing link is the network's own bridge. A bridge that the user named and made is used as it is.
    fn require_usable(&self, network: &NetworkConfig, link: &Link) -> Result<bool> {
        let taken = |by: &str| {
            Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "create network {}: interface {} is {by}",
                    network.name.escape_debug(),
                    link.name
                ),
            ))
        };
        match link.alias.as_deref() {
            _ if !link.bridge => taken("no bridge; remove it or choose another bridge name"),
            Some(alias) if alias == self.bridge_alias(network) => Ok(true),
            Some(alias) if alias.starts_with("brig:") => taken("the bridge of another network"),
            _ => Ok(network.bridge.is_none()),
        }
    }

    /// Removes a network; missing parts are fine. A bridge that the user made stays.
    pub fn remove(&self, network: &NetworkConfig) -> Teardown {
        let mut teardown = Teardown::default();
        if network.driver != Driver::Bridge {
            return teardown;
        }
        let delete_bridge = || {
            let mut routes = Routes::open()?;
            let name = network.bridge_name();
            match routes.link(&name)? {
                Some(link) if link.bridge && self.is_ours(&link, network) => {
                    routes.delete_link(&name)
                }
                _ => Ok(()),
            }
        };
        teardown.attempt(delete_bridge());
        // After the bridge, so that no moment is without rules.
        teardown.attempt(
            firewall::network_elements(network).and_then(|elements| self.withdraw(&elements)),
        );
        teardown
    }

    fn is_ours(&self, link: &Link, network: &NetworkConfig) -> bool {
        match link.alias.as_deref() {
            Some(alias) => alias == self.bridge_alias(network),
            // Made, but not marked before a crash.
            None => network.bridge.is_none(),
        }
    }

    /// Connects a container: a veth pair into its namespace, address, routes, then its published ports. A leftover of
    /// the same endpoint is replaced.
    ///
    /// # Errors
    /// `InvalidInput` as [`Endpoint::validate`]; `NotFound` when the network's bridge or the namespace is missing; else
    /// what the kernel reports. What was made before the failure is removed.
    pub fn connect(&self, network: &NetworkConfig, endpoint: &Endpoint) -> Result<()> {
        if network.driver != Driver::Bridge {
            return Err(Error::invalid(format!(
                "connect to network {}: a {} network has no endpoints",
                network.name.escape_debug(),
                network.driver.name()
            )));
        }
        endpoint.validate(network)?;
        let done = self.plug(network, endpoint);
        if done.is_err() {
            for error in self.disconnect(network, endpoint).errors {
                warn!(endpoint = endpoint.id, %error, "cannot undo a failed connection");
            }
        }
        done
    }

    fn plug(&self, network: &NetworkConfig, endpoint: &Endpoint) -> Result<()> {
        let netns = netns::open(&endpoint.netns)?;
        let mut routes = Routes::open()?;
        let bridge =
            routes.link(&network.bridge_name())?.filter(|link| link.bridge).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "connect to network {}: its bridge {} is missing",
                        network.name.escape_debug(),
                        network.bridge_name()
                    ),
                )
            })?;
        let host = endpoint.host_interface(network);
        let alias = self.endpoint_alias(network, endpoint);
        let pair = veth_pair(network, endpoint, &host, &alias, &bridge, netns.as_fd());
        routes.delete_link(&host)?;
        routes.create_veth(&pair)?;
        configure_inside(endpoint, &mut Routes::open_in(netns.as_fd())?)?;
        self.publish(network, endpoint)?;
        let port = routes.link(&host)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("create link {host}: somebody removed it at once"),
            )
        })?;
        routes.raise_port(port.index, &pair)
    }

    fn publish(&self, network: &NetworkConfig, endpoint: &Endpoint) -> Result<()> {
        let elements = firewall::endpoint_elements(network, endpoint);
        if elements.is_empty() {
            return Ok(());
        }
        self.change_firewall(|batch, table| nft::add_elements(batch, table, &elements)).map_err(
            |error| {
                // The caller's reservation should have prevented it.
                if error.kind() == ErrorKind::AlreadyExists {
                    error.with_kind(ErrorKind::Conflict)
                } else {
                    error
                }
            },
        )?;
        forget_connections(endpoint)?;
        if reaches_loopback(endpoint) {
            sysctl::route_loopback(&network.bridge_name())?;
        }
        Ok(())
    }

    /// Points the default route of a connected container through this network, replacing the one it has.
    ///
    /// # Errors
    /// `InvalidInput` when the endpoint has no gateway; `NotFound` when it is not connected.
    pub fn set_default_route(&self, endpoint: &Endpoint) -> Result<()> {
        let gateway = endpoint.gateway.ok_or_else(|| {
            Error::invalid(format!(
                "set the default route of {}: the endpoint has no gateway",
                endpoint.id
            ))
        })?;
        let netns = netns::open(&endpoint.netns)?;
        let mut routes = Routes::open_in(netns.as_fd())?;
        let link = inner_link(endpoint, &mut routes)?;
        routes.set_default_route(link.index, gateway)
    }

    /// Disconnects a container; missing parts, the namespace among them, are fine.
    pub fn disconnect(&self, network: &NetworkConfig, endpoint: &Endpoint) -> Teardown {
        let mut teardown = Teardown::default();
        if network.driver != Driver::Bridge {
            return teardown;
        }
        let elements = firewall::endpoint_elements(network, endpoint);
        teardown.attempt(self.withdraw(&elements));
        let host = endpoint.host_interface(network);
        teardown.attempt(Routes::open().and_then(|mut routes| routes.delete_link(&host)));
        teardown.attempt(forget_connections(endpoint));
        teardown
    }

    /// Rebuilds the whole table from the state in one transaction: after a restart, after somebody flushed the ruleset,
    /// or to undo foreign changes. Packets never meet a half-made table, and connections survive.
    ///
    /// # Errors
    /// `InvalidInput` for a state that cannot be; else what the kernel reports, and then the old table stands.
    pub fn sync(&self, state: &[NetworkState]) -> Result<()> {
        let bridged = || state.iter().filter(|state| state.network.driver == Driver::Bridge);
        let mut elements = Vec::new();
        for NetworkState { network, endpoints } in bridged() {
            network.validate()?;
            elements.extend(firewall::network_elements(network)?);
            for endpoint in endpoints {
                endpoint.validate(network)?;
                elements.extend(firewall::endpoint_elements(network, endpoint));
            }
        }
        // One message per set, not per endpoint.
        elements.sort();
        let table = firewall::table(self.instance.table());
        let mut batch = Batch::new(nft::SUBSYSTEM);
        nft::delete_table(&mut batch, &table.name);
        nft::create_table(&mut batch, &table);
        nft::add_elements(&mut batch, &table.name, &elements);
        let guard = self.lock();
        Socket::open(Protocol::Netfilter)?.transact(&batch)?;
        drop(guard);
        if bridged().any(|state| !state.network.internal) {
            sysctl::enable_forwarding()?;
        }
        for NetworkState { network, endpoints } in bridged() {
            if !network.internal && endpoints.iter().any(reaches_loopback) {
                match sysctl::route_loopback(&network.bridge_name()) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Removes links of this instance that the state does not know: what a crash left behind.
    pub fn sweep(&self, known: &[NetworkState]) -> Teardown {
        let mut teardown = Teardown::default();
        let compared = self.compare(known).and_then(|found| Ok((found, Routes::open()?)));
        let (found, mut routes) = match compared {
            Ok(opened) => opened,
            Err(error) => {
                teardown.errors.push(error);
                return teardown;
            }
        };
        for name in found.strays {
            let deleted =
                InterfaceName::new(name.clone()).and_then(|name| routes.delete_link(&name));
            match deleted {
                Ok(()) => teardown.removed.push(format!("link {name}")),
                Err(error) => teardown.errors.push(error),
            }
        }
        teardown
    }

    /// Compares this instance's links with what is known, without changing anything.
    ///
    /// # Errors
    /// What netlink reports.
    pub fn compare(&self, known: &[NetworkState]) -> Result<LinkComparison> {
        let mut names = BTreeSet::new();
        let mut bridges_known = Vec::new();
        for NetworkState { network, endpoints } in known {
            bridges_known.push((network.name.clone(), network.bridge_name().to_string()));
            names.insert(network.bridge_name().to_string());
            names.extend(
                endpoints.iter().map(|endpoint| endpoint.host_interface(network).to_string()),
            );
        }
        let links = Routes::open()?.links()?;
        let prefix = self.instance.alias_prefix();
        let marked =
            |link: &Link| link.alias.as_ref().is_some_and(|alias| alias.starts_with(&prefix));
        let bridges: BTreeSet<u32> = links
            .iter()
            .filter(|link| link.bridge && marked(link))
            .map(|link| link.index)
            .collect();
        // A veth is marked in the step after its creation; unmarked ones betray themselves by their bridge.
        let ours = |link: &Link| {
            marked(link)
                || (link.veth
                    && link.alias.is_none()
                    && link.controller.is_some_and(|index| bridges.contains(&index)))
        };
        let strays = links.iter().filter(|link| ours(link) && !names.contains(&link.name));
        let strays = strays.map(|link| link.name.clone()).collect();
        let missing = |bridge: &str| !links.iter().any(|link| link.bridge && link.name == bridge);
        let missing_bridges = bridges_known
            .into_iter()
            .filter(|(_, bridge)| missing(bridge))
            .map(|(network, _)| network)
            .collect();
        Ok(LinkComparison { strays, missing_bridges })
    }

    /// Removes the instance's table, when no network is left. One that is gone is fine.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn destroy(&self) -> Result<()> {
        let mut batch = Batch::new(nft::SUBSYSTEM);
        nft::delete_table(&mut batch, self.instance.table());
        let _guard = self.lock();
        Ok(Socket::open(Protocol::Netfilter)?.transact(&batch)?)
    }

    /// Whether the table with all its rules is there: `false` after somebody flushed or deleted it, when ports are dead
    /// and containers exposed until [`sync`](Self::sync). Cheap enough to ask every few seconds.
    ///
    /// # Errors
    /// What netlink reports.
    pub fn is_intact(&self) -> Result<bool> {
        diagnosis::is_intact(self.instance.table())
    }

    /// Looks for reasons why containers may be cut off although everything here is in place.
    ///
    /// # Errors
    /// What netlink reports.
    pub fn diagnose(&self) -> Result<Vec<Problem>> {
        diagnosis::diagnose(self.instance.table())
    }

    /// Adds to the table within one transaction, which also makes the table when it is missing.
    fn change_firewall(&self, change: impl FnOnce(&mut Batch, &str)) -> Result<()> {
        let name = self.instance.table();
        let _guard = self.lock();
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut batch = Batch::new(nft::SUBSYSTEM);
        if !table_exists(&mut socket, name)? {
            nft::create_table(&mut batch, &firewall::table(name));
        }
        change(&mut batch, name);
        Ok(socket.transact(&batch)?)
    }

    /// Takes elements out of the sets, those that are there. A port that meanwhile leads to another container stays.
    fn withdraw(&self, elements: &[Element]) -> Result<()> {
        let name = self.instance.table();
        let _guard = self.lock();
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut present = Vec::new();
        for element in elements {
            if is_present(&mut socket, name, element)? {
                present.push(element.clone());
            }
        }
        let mut batch = Batch::new(nft::SUBSYSTEM);
        nft::delete_elements(&mut batch, name, &present);
        match socket.transact(&batch) {
            // Somebody flushed the table at this moment.
            Err(error) if error.kind() == LinuxErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bridge_alias(&self, network: &NetworkConfig) -> String {
        format!("{}{}", self.instance.alias_prefix(), network.id)
    }

    fn endpoint_alias(&self, network: &NetworkConfig, endpoint: &Endpoint) -> String {
        format!("{}:{}", self.bridge_alias(network), endpoint.id)
    }
}

fn veth_pair<'a>(
    network: &NetworkConfig,
    endpoint: &'a Endpoint,
    host: &'a InterfaceName,
    alias: &'a str,
    bridge: &Link,
    netns: BorrowedFd<'a>,
) -> VethPair<'a> {
    VethPair {
        host,
        alias,
        bridge: bridge.index,
        netns,
        container: &endpoint.interface,
        mac: endpoint.mac,
        mtu: network.mtu.unwrap_or(bridge.mtu),
        isolated: !network.inter_container,
    }
}

fn table_exists(socket: &mut Socket, name: &str) -> Result<bool> {
    let request = nft::get_table(name);
    match socket.request_raw(
        "look up an nft table",
        MessageType::GetTable.with_subsystem(),
        0,
        &request,
    ) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == LinuxErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_present(socket: &mut Socket, table: &str, element: &Element) -> Result<bool> {
    let request = nft::get_element(table, element);
    let operation = "look up an nft set element";
    match socket.get_raw(operation, MessageType::GetElement.with_subsystem(), &request) {
        Ok((_, payload)) => Ok(match &element.data {
            Data::Value(value) => nft::element_data(&payload) == Some(&value[..]),
            _ => true,
        }),
        Err(error) if error.kind() == LinuxErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn configure_inside(endpoint: &Endpoint, routes: &mut Routes) -> Result<()> {
    let link = inner_link(endpoint, routes)?;
    netns::run_in(&endpoint.netns, || sysctl::disable_ipv6(&endpoint.interface))?;
    routes.add_address(link.index, endpoint.address)?;
    routes.set_up(link.index, &endpoint.interface)?;
    match endpoint.gateway {
        Some(gateway) => routes.set_default_route(link.index, gateway),
        None => Ok(()),
    }
}

fn inner_link(endpoint: &Endpoint, routes: &mut Routes) -> Result<Link> {
    routes.link(&endpoint.interface)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "configure {} of {}: there is no such link in its namespace",
                endpoint.interface, endpoint.id
            ),
        )
    })
}

fn forget_connections(endpoint: &Endpoint) -> Result<()> {
    match endpoint.address.address() {
        IpAddr::V4(address) => conntrack::forget(address, &endpoint.ports),
        IpAddr::V6(_) => Ok(()),
    }
}

fn reaches_loopback(endpoint: &Endpoint) -> bool {
    endpoint.ports.iter().any(|port| port.host_ip.is_unspecified() || port.host_ip.is_loopback())
}
