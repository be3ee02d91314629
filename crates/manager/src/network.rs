//! Networks: kept as records, set up by the network library, joined by containers.
//!
//! ```text
//! metadata  networks            NetworkRecord: written before the bridge is made, removed after it is gone
//!           containers          Attachment::endpoint: written before the link is made
//! memory    State               both again, for addresses in use, names and inspect
//! kernel    bridges, veths, nft  rebuilt from the records by `reconcile` after a restart
//! state/netns/<container id>    the container's namespace, while it runs
//! ```
//!
//! Lock order: `changes` (shared by whoever changes the kernel's networks, alone for a repair of all of them), then `State`
//! (short, never across an await).

mod describe;
mod dns_server;
mod guard;
mod ports;
mod request;
mod sandbox;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_network::{Driver, Endpoint, Instance, LinkComparison, NetworkConfig, NetworkState};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::blocking;
use crate::config::Config;
use crate::container::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;
use crate::filters::Filters;
use crate::metadata::{Metadata, NetworkRecord};
use crate::models::{
    EventMessageTypeEnum, Network, NetworkConnectRequest, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest, NetworkInspect, NetworkPruneResponse,
};

pub(crate) use ports::port_requests;
pub(crate) use sandbox::{Joined, check_settings};

/// All networks of the engine.
#[derive(Debug, Clone)]
pub struct Networks(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    metadata: Metadata,
    events: Events,
    table: Table,
    library: brig_network::Networks,
    state: Mutex<State>,
    changes: tokio::sync::RwLock<()>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    networks: BTreeMap<String, NetworkRecord>,
    /// Endpoints by network and container.
    endpoints: BTreeMap<(String, String), Member>,
    /// The address allocated last in each network, so that one is not used again at once.
    last: HashMap<String, IpAddr>,
    /// What the name server of each container answers.
    zones: HashMap<String, watch::Sender<Arc<brig_network::dns::Zone>>>,
}

/// A container in a network.
#[derive(Debug, Clone)]
struct Member {
    /// Identifier that users see.
    id: String,
    container_name: String,
    /// Names that others in the network find it by.
    names: Vec<String>,
    endpoint: Endpoint,
}

impl State {
    /// Finds a network by id, name, or unambiguous beginning of its id.
    fn find(&self, text: &str) -> Result<&NetworkRecord> {
        if let Some(record) = self.networks.get(text) {
            return Ok(record);
        }
        if let Some(record) = self.networks.values().find(|record| record.config.name == text) {
            return Ok(record);
        }
        let mut found = self
            .networks
            .values()
            .filter(|record| !text.is_empty() && record.config.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("network {text} is ambiguous: several ids begin so")))
            }
            (None, _) => Err(Error::not_found(format!("network {text} not found"))),
        }
    }

    fn members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a String, &'a Member)> {
        self.endpoints
            .iter()
            .filter(move |((id, _), _)| id == network)
            .map(|((_, container), member)| (container, member))
    }

    fn kernel_state(&self) -> Vec<NetworkState> {
        let bridges =
            self.networks.values().filter(|record| record.config.driver == Driver::Bridge);
        bridges
            .map(|record| NetworkState {
                network: record.config.clone(),
                endpoints: self
                    .members(&record.config.id)
                    .map(|(_, member)| member.endpoint.clone())
                    .collect(),
            })
            .collect()
    }
}

impl Networks {
    /// Reads the records; makes the default networks' records when they are missing.
    pub(crate) async fn open(
        config: Arc<Config>,
        metadata: Metadata,
        events: Events,
        table: Table,
        tasks: TaskTracker,
    ) -> Result<Self> {
        let library = brig_network::Networks::new(Instance::new(config.nft_table.clone())?);
        let networks = metadata
            .networks()?
            .into_iter()
            .map(|record| (record.config.id.clone(), record))
            .collect();
        let state = Mutex::new(State { networks, ..State::default() });
        let changes = tokio::sync::RwLock::default();
        let this = Self(Arc::new(Inner {
            config,
            metadata,
            events,
            table,
            library,
            state,
            changes,
            tasks,
        }));
        this.make_defaults().await?;
        Ok(this)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a blocking call of the network library.
    async fn library<T: Send + 'static>(
        &self,
        call: impl FnOnce(&brig_network::Networks) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        blocking::run(move || call(&inner.library)).await
    }

    async fn make_defaults(&self) -> Result<()> {
        for (name, driver) in
            [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::None)]
        {
            let present = self.state().networks.values().any(|record| record.config.name == name);
            if present {
                continue;
            }
            let mut record = request::predefined(&self.0.config, name, driver)?;
            if driver == Driver::Bridge && record.config.subnets.is_empty() {
                let occupied = self.occupied().await?;
                let preferred = brig_network::ipam::default_subnet();
                let subnet = brig_network::ipam::choose_subnet(Some(preferred), &occupied)?;
                record.config.subnets = request::subnets(subnet)?;
            }
            self.0.metadata.put_network(&record).await?;
            self.state().networks.insert(record.config.id.clone(), record);
        }
        Ok(())
    }

    async fn occupied(&self) -> Result<Vec<brig_network::ipam::Occupied>> {
        let mut occupied = self.library(|library| library.occupied().map_err(Error::from)).await?;
        for record in self.state().networks.values() {
            occupied.extend(record.config.subnets.iter().map(|subnet| {
                brig_network::ipam::Occupied {
                    network: subnet.network,
                    owner: format!("network {}", record.config.name),
                }
            }));
        }
        Ok(occupied)
    }

    /// Brings bridges and rules in line with the records and the containers that were adopted; removes what nobody
    /// knows. Call it once, after all containers are known.
    ///
    /// `running` are the containers whose namespaces stay.
    pub(crate) async fn reconcile(&self, running: Vec<String>) -> Result<()> {
        let state = self.state().kernel_state();
        self.library(move |library| {
            for network in &state {
                library.create(&network.network)?;
            }
            library.sync(&state)?;
            for error in library.sweep(&state).errors {
                tracing::warn!("sweep networks: {}", Error::from(error).report());
            }
            Ok(())
        })
        .await?;
        self.remove_stray_namespaces(running).await
    }

    /// Compares the links with the records and the running containers.
    pub(crate) async fn compare(&self) -> Result<LinkComparison> {
        let state = self.state().kernel_state();
        self.library(move |library| Ok(library.compare(&state)?)).await
    }

    /// How many networks there are.
    pub(crate) fn count(&self) -> usize {
        self.state().networks.len()
    }

    /// Makes missing bridges and rules, removes links that belong to nobody.
    pub(crate) async fn repair(&self) -> Result<()> {
        let _alone = self.0.changes.write().await;
        let state = self.state().kernel_state();
        self.library(move |library| {
            for network in &state {
                library.create(&network.network)?;
            }
            library.sync(&state)?;
            library.sweep(&state).into_result().map_err(Error::from)
        })
        .await
    }

    /// Takes all bridges and rules off the machine; the records stay, and the next [`crate::Engine::open`] makes them anew.
    /// For a program that embeds the engine and wants to leave nothing: to be called after [`crate::Engine::close`].
    ///
    /// # Errors
    ///
    /// A container is connected, or something cannot be removed.
    pub async fn take_down(&self) -> Result<()> {
        let _alone = self.0.changes.write().await;
        if let Some((_, container)) = self.state().endpoints.keys().next() {
            return Err(Error::conflict(format!(
                "container {container} is connected to a network; stop it first"
            )));
        }
        let state = self.state().kernel_state();
        self.library(move |library| {
            for network in &state {
                library.remove(&network.network).into_result()?;
            }
            Ok(library.destroy()?)
        })
        .await
    }

    /// Removes the network namespace of a container that has no record.
    pub(crate) async fn remove_namespace(&self, container: &str) -> Result<()> {
        let path = self.namespaces().join(container);
        blocking::run(move || brig_network::netns::remove(&path).map_err(Error::from)).await
    }

    async fn remove_stray_namespaces(&self, known: Vec<String>) -> Result<()> {
        let directory = self.namespaces();
        blocking::run(move || {
            let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(()) };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !known.contains(&name)
                    && let Err(error) = brig_network::netns::remove(&entry.path())
                {
                    tracing::warn!(
                        "remove network namespace {name}: {}",
                        Error::from(error).report()
                    );
                }
            }
            Ok(())
        })
        .await
    }

    fn namespaces(&self) -> PathBuf {
        self.0.config.state.join("netns")
    }

    fn publish(&self, action: &str, record: &NetworkRecord, container: Option<&str>) {
        let mut attributes = HashMap::from([
            ("name".to_owned(), record.config.name.clone()),
            ("type".to_owned(), record.config.driver.name().to_owned()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.0.events.publish(EventMessageTypeEnum::NETWORK, action, &record.config.id, attributes);
    }

    /// Makes a network.
    ///
    /// # Errors
    ///
    /// The name is taken, a subnet overlaps, or something is asked for that is not built.
    pub async fn create(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        let mut record = request::parse(request)?;
        let name = record.config.name.clone();
        let taken =
            || Error::new(ErrorKind::Conflict, format!("network with name {name} already exists"));
        if self.state().networks.values().any(|other| other.config.name == name) {
            return Err(taken());
        }
        let occupied = self.occupied().await?;
        match record.config.subnets.first() {
            Some(subnet) => brig_network::ipam::require_free(subnet.network, &occupied)?,
            None => {
                let subnet = brig_network::ipam::choose_subnet(None, &occupied)?;
                record.config.subnets = request::subnets(subnet)?;
            }
        }
        record.config.validate()?;
        let _changing = self.0.changes.read().await;
        {
            // Again under the lock: two calls may have come this far.
            let mut state = self.state();
            if state.networks.values().any(|other| other.config.name == name) {
                return Err(taken());
            }
            let overlaps = |other: &NetworkRecord| {
                other.config.subnets.iter().any(|used| {
                    record
                        .config
                        .subnets
                        .iter()
                        .any(|subnet| subnet.network.overlaps(&used.network))
                })
            };
            if let Some(other) = state.networks.values().find(|other| overlaps(other)) {
                return Err(Error::conflict(format!(
                    "the subnet overlaps with that of network {}",
                    other.config.name
                )));
            }
            state.networks.insert(record.config.id.clone(), record.clone());
        }
        let made = async {
            self.0.metadata.put_network(&record).await?;
            let config = record.config.clone();
            self.library(move |library| library.create(&config).map_err(Error::from)).await
        };
        if let Err(error) = made.await {
            self.state().networks.remove(&record.config.id);
            self.0.metadata.remove_network(&record.config.id).await?;
            return Err(error);
        }
        self.publish("create", &record, None);
        Ok(NetworkCreateResponse { id: record.config.id, warning: String::new() })
    }

    /// Lists networks.
    ///
    /// # Errors
    ///
    /// A filter is unknown.
    pub async fn list(&self, filters: Filters) -> Result<Vec<Network>> {
        filters.check(&["dangling", "driver", "id", "label", "label!", "name", "scope", "type"])?;
        let dangling = filters.flag("dangling")?;
        let state = self.state();
        let wanted = |record: &&NetworkRecord| {
            let config = &record.config;
            let used = state.members(&config.id).next().is_some();
            filters.any("name", |text| config.name.contains(text))
                && filters.any("id", |text| config.id.starts_with(text))
                && filters.any("driver", |text| config.driver.name() == text)
                && filters.any("scope", |text| text == "local")
                && filters.any("type", |text| {
                    text == if record.predefined { "builtin" } else { "custom" }
                })
                && filters.labels(&record.labels)
                && dangling.is_none_or(|dangling| dangling != (used || record.predefined))
        };
        Ok(state.networks.values().filter(wanted).map(describe::network).collect())
    }

    /// Everything about one network.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn inspect(&self, network: &str) -> Result<NetworkInspect> {
        let state = self.state();
        let record = state.find(network)?;
        Ok(describe::inspect(record, state.members(&record.config.id)))
    }

    /// Removes a network that no container uses.
    ///
    /// # Errors
    ///
    /// It does not exist, is one of the default networks, or a container is connected.
    pub async fn remove(&self, network: &str) -> Result<()> {
        let _changing = self.0.changes.read().await;
        let record = {
            let mut state = self.state();
            let record = state.find(network)?.clone();
            let name = &record.config.name;
            if record.predefined {
                return Err(Error::new(
                    ErrorKind::Denied,
                    format!("{name} is a pre-defined network and cannot be removed"),
                ));
            }
            let users: Vec<String> = state
                .members(&record.config.id)
                .map(|(_, member)| {
                    let id = crate::name::short(&member.id);
                    format!("name:{:?} id:{id:?}", member.container_name)
                })
                .collect();
            if !users.is_empty() {
                return Err(Error::conflict(format!(
                    "error while removing network: network {name} has active endpoints ({})",
                    users.join(", ")
                )));
            }
            state.networks.remove(&record.config.id);
            record
        };
        let config = record.config.clone();
        let removed = self
            .library(move |library| library.remove(&config).into_result().map_err(Error::from))
            .await;
        if let Err(error) = removed {
            self.state().networks.insert(record.config.id.clone(), record);
            return Err(error);
        }
        self.0.metadata.remove_network(&record.config.id).await?;
        self.publish("destroy", &record, None);
        Ok(())
    }

    /// Joins a container to a network.
    ///
    /// # Errors
    ///
    /// Either does not exist, they are joined already, or the address is taken.
    pub async fn connect(&self, network: &str, request: NetworkConnectRequest) -> Result<()> {
        let name = self.state().find(network)?.config.name.clone();
        let handle = self.0.table.find(&request.container)?;
        let settings = Box::new(request.endpoint_config.unwrap_or_default());
        handle
            .ask(|reply| crate::container::Request::Connect { network: name, settings, reply })
            .await
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    ///
    /// Either does not exist, or they are not joined.
    pub async fn disconnect(&self, network: &str, request: NetworkDisconnectRequest) -> Result<()> {
        let name = self.state().find(network)?.config.name.clone();
        let handle = self.0.table.find(&request.container)?;
        handle.ask(|reply| crate::container::Request::Disconnect { network: name, reply }).await
    }

    /// Removes networks that no container uses.
    ///
    /// # Errors
    ///
    /// A filter is unknown. Networks that cannot be removed are left.
    pub async fn prune(&self, filters: Filters) -> Result<NetworkPruneResponse> {
        filters.check(&["label", "label!", "until"])?;
        let until = crate::container::parse_until(&filters)?;
        // Containers that do not run keep their networks too.
        let wanted: Vec<String> = self
            .0
            .table
            .views()
            .iter()
            .flat_map(|view| view.record.networks.keys().cloned().collect::<Vec<_>>())
            .collect();
        let candidates: Vec<NetworkRecord> = self
            .state()
            .networks
            .values()
            .filter(|record| !record.predefined && !wanted.contains(&record.config.name))
            .filter(|record| filters.labels(&record.labels))
            .filter(|record| until.as_ref().is_none_or(|until| record.created_at < *until))
            .cloned()
            .collect();
        let mut removed = Vec::new();
        for record in candidates {
            match self.remove(&record.config.id).await {
                Ok(()) => removed.push(record.config.name),
                Err(error) => {
                    tracing::warn!("prune network {}: {}", record.config.name, error.report());
                }
            }
        }
        Ok(NetworkPruneResponse { networks_deleted: Some(removed) })
    }

    /// The record of a network, by id or name.
    pub(crate) fn find(&self, network: &str) -> Result<NetworkRecord> {
        self.state().find(network).cloned()
    }
}

/// The configuration of every network that `records` names, for choosing a default route.
fn bridges<'a>(records: impl IntoIterator<Item = &'a NetworkRecord>) -> Vec<&'a NetworkConfig> {
    records
        .into_iter()
        .map(|record| &record.config)
        .filter(|config| config.driver == Driver::Bridge)
        .collect()
}
