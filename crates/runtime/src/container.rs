//! Containers: the handle types, and the operations of the OCI lifecycle.

#[cfg(feature = "checkpoint")]
mod checkpoint;
mod create;
mod exec;
mod lifecycle;
mod members;
mod mounts;
mod options;
mod plan;
#[cfg(feature = "checkpoint")]
mod restore;

#[cfg(feature = "checkpoint")]
pub use checkpoint::{CheckpointOptions, CriuOptions};
pub use options::{
    Console, ContainerId, CreateOptions, ExecOptions, KillScope, RootfsMount, Status, Stdio,
    mount_rootfs,
};
#[cfg(feature = "checkpoint")]
pub use restore::RestoreOptions;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources, Mount, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Hierarchies, Stats};
use crate::error::{Error, ErrorKind, Result};
use crate::process::adjust::Change;
use crate::process::id_maps::IdMapPrograms;
use crate::state::Directory;
use crate::{notify, resctrl};

/// A directory that holds the state of containers, and how to make them.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
    systemd_cgroup: bool,
    systemd_bus: Option<PathBuf>,
    rootless: bool,
    id_map_programs: Option<IdMapPrograms>,
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    directory: Directory,
    /// The configuration, once it was needed; it never changes.
    spec: OnceLock<Spec>,
}

/// What [`Runtime::create`] made.
#[derive(Debug)]
pub struct Created {
    /// The container, in status `Created`.
    pub container: Container,
    /// The number of its init, a direct child of this process.
    pub pid: i32,
    /// The descriptor of its init.
    pub pidfd: OwnedFd,
    /// The master side of its terminal, with [`Console::Return`].
    pub console: Option<OwnedFd>,
}

/// A further process that [`Container::exec`] started.
#[derive(Debug)]
pub struct Exec {
    /// Its number, a direct child of this process.
    pub pid: i32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
    /// The master side of its terminal, with [`Console::Return`].
    pub console: Option<OwnedFd>,
}

/// The OCI state of a container, with what `list` and `state` print besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// Version of the OCI runtime specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The number of its init, 0 when stopped.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The annotations of its configuration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
    /// The name of the user who created it.
    pub owner: String,
}

/// The error for what cannot be done without a cgroup.
fn no_cgroup(id: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("container {id} has no cgroup of its own"))
        .with_advice("its maker was neither root nor had a cgroup delegated; see --systemd-cgroup")
}

/// The error for a container whose init has ended.
fn gone(id: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{id}: container not running"))
}

impl Runtime {
    /// A runtime that keeps its state under `root` (made on first use, mode 0700).
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            systemd_cgroup: false,
            systemd_bus: None,
            rootless: false,
            id_map_programs: None,
        }
    }

    /// Whether cgroups are made by systemd (`slice:prefix:name` cgroup paths).
    #[must_use]
    pub fn systemd_cgroup(self, systemd_cgroup: bool) -> Self {
        Self { systemd_cgroup, ..self }
    }

    /// The Unix socket of the D-Bus to reach systemd by, where it is not `/run/dbus/system_bus_socket`, or for a caller
    /// without the host's privileges `/run/user/<uid>/bus`.
    #[must_use]
    pub fn systemd_bus(self, bus: Option<PathBuf>) -> Self {
        Self { systemd_bus: bus, ..self }
    }

    /// Whether the caller may lack the right to make cgroups, as every user but root, and root of a user namespace. A
    /// container that asks for no limits then runs without cgroups of its own where none is delegated to the caller, and
    /// rules for devices, which only root can set, are left to the caller's own rights.
    ///
    /// Whoever is not root needs a user namespace for the container, whatever this says.
    #[must_use]
    pub fn rootless(self, rootless: bool) -> Self {
        Self { rootless, ..self }
    }

    /// The programs that map ranges of ids for a caller who is not root; without them such a caller maps its own alone.
    #[must_use]
    pub fn id_map_programs(self, programs: Option<IdMapPrograms>) -> Self {
        Self { id_map_programs: programs, ..self }
    }

    /// Creates a container from `bundle`: its init waits, set up completely, for [`Container::start`].
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput` for the configuration, `Unsupported`, or what the kernel refused.
    pub fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        options: CreateOptions,
    ) -> Result<Created> {
        self.create_container(id, bundle, options)
            .map_err(|error| error.context(format!("create {id}")))
    }

    /// A container that was created before, by any process.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container(&self, id: &ContainerId) -> Result<Container> {
        Ok(Container::of(Directory::open(&self.root, id)?))
    }

    /// All containers under the root, by id.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> Result<Vec<ContainerState>> {
        let attempt = |source| Error::system(format!("list {}", self.root.display()), source);
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(attempt(source)),
        };
        let mut states = Vec::new();
        for entry in entries {
            let name = entry.map_err(attempt)?.file_name();
            let Some(id) = name.to_str().and_then(|name| ContainerId::parse(name).ok()) else {
                continue;
            };
            // One that is being made, or was deleted meanwhile, has no state to list.
            if let Ok(state) = self.container(&id).and_then(|container| container.state()) {
                states.push(state);
            }
        }
        states.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(states)
    }
}

impl Container {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        self.directory.id()
    }

    /// Lets init execute the user's program; answers once it did.
    ///
    /// # Errors
    /// `Conflict` when it is not in status `Created`; what a hook or the exec failed with.
    pub fn start(&self) -> Result<()> {
        self.start_container()
    }

    /// The socket on which its program says that it is ready, if it was created with one
    /// ([`CreateOptions::notify`]): to be bound before the start, by one process.
    ///
    /// # Errors
    /// The system's.
    pub fn notify_socket(&self) -> Result<Option<UnixDatagram>> {
        notify::bind(&self.directory.notify())
    }

    /// Sends a signal, by number.
    ///
    /// # Errors
    /// `Conflict` when the container has stopped.
    pub fn kill(&self, signal: i32, scope: KillScope) -> Result<()> {
        self.kill_container(signal, scope)
    }

    /// Removes what belongs to a stopped container; `force` kills it first.
    ///
    /// # Errors
    /// `Conflict` when it runs and `force` is not set; otherwise all that could not be removed.
    pub fn delete(&self, force: bool) -> Result<()> {
        self.delete_container(force)
    }

    /// The OCI state.
    ///
    /// # Errors
    /// `NotFound` once deleted.
    pub fn state(&self) -> Result<ContainerState> {
        self.state_of(&self.existing()?)
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// `NotFound` once deleted.
    pub fn status(&self) -> Result<Status> {
        match self.directory.read()? {
            Some(state) => self.status_of(&state),
            None => Ok(Status::Creating),
        }
    }

    /// Runs a further process inside.
    ///
    /// # Errors
    /// `Conflict` when the container does not run; otherwise as [`Runtime::create`].
    pub fn exec(&self, process: &Process, options: ExecOptions) -> Result<Exec> {
        self.exec_process(process, options)
            .map_err(|error| error.context(format!("exec in {}", self.id())))
    }

    /// The numbers of all its processes, in the caller's PID namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let state = self.existing()?;
        if state.cgroup.is_nowhere() {
            return Ok(self.init(&state).map(|_| members::of(state.pid)).unwrap_or_default());
        }
        let pids = Cgroup::open(&state.cgroup)?.procs()?;
        Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn pause(&self) -> Result<()> {
        let _lock = self.directory.lock()?;
        match self.status()? {
            Status::Running | Status::Created => self.cgroup()?.freeze(),
            status => Err(self.conflict("pause", status)),
        }
    }

    /// Thaws what [`Container::pause`] froze.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub fn resume(&self) -> Result<()> {
        let _lock = self.directory.lock()?;
        match self.status()? {
            Status::Paused => self.cgroup()?.thaw(),
            status => Err(self.conflict("resume", status)),
        }
    }

    /// Mounts bind mounts and tmpfs into it while it exists: all of them, or on failure none.
    ///
    /// # Errors
    /// `Unsupported` for other filesystems; `InvalidInput`, `Conflict`, or what the kernel refused.
    pub fn add_mounts(&self, mounts: &[Mount]) -> Result<()> {
        self.adjust(mounts, Change::Add)
    }

    /// Unmounts what is mounted at the destinations of `mounts`, of which nothing else counts.
    ///
    /// # Errors
    /// `InvalidInput` where nothing is mounted; `Conflict` once it has stopped.
    pub fn remove_mounts(&self, mounts: &[Mount]) -> Result<()> {
        self.adjust(mounts, Change::Remove)
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// `InvalidInput`, or what the kernel refused.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let _lock = self.directory.lock()?;
        match self.status()? {
            Status::Stopped | Status::Creating => Err(self.conflict("update", self.status()?)),
            _ => {
                let state = self.existing()?;
                let cgroup = self.cgroup()?;
                if let Some(scope) = &state.scope {
                    scope.update(Hierarchies::detect()?.mode(), resources)?;
                }
                cgroup.set(resources).map(drop)
            }
        }
    }

    /// Changes its schemata in resctrl, by the older fields (`l3CacheSchema`, `memBwSchema`) or by `schemata`; a container
    /// that has no group there gets one.
    ///
    /// # Errors
    /// `Unsupported` where resctrl is not mounted; `InvalidInput`, or what the kernel refused.
    pub fn update_cache(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        let _lock = self.directory.lock()?;
        if let status @ (Status::Stopped | Status::Creating) = self.status()? {
            return Err(self.conflict("update", status));
        }
        let mut state = self.existing()?;
        let root = resctrl::mount_point()?;
        if let Some(groups) = &state.resctrl {
            return groups.change(wanted);
        }
        let plan = resctrl::Plan::new(&root, wanted, &state.id)?;
        state.resctrl = Some(plan.groups.clone());
        self.directory.write(&state)?;
        plan.apply(state.pid)?;
        self.pids()?.into_iter().try_for_each(|pid| plan.groups.join(pid))
    }

    /// What it uses.
    ///
    /// # Errors
    /// The system's.
    pub fn stats(&self) -> Result<Stats> {
        self.cgroup()?.stats()
    }

    /// Its cgroup in all hierarchies.
    ///
    /// # Errors
    /// `NotFound` once it is removed; `Unsupported` where it has none.
    pub fn cgroup(&self) -> Result<Cgroup> {
        let state = self.existing()?;
        if state.cgroup.is_nowhere() {
            return Err(no_cgroup(&state.id));
        }
        Cgroup::open(&state.cgroup)
    }

    /// The configuration that it was created from.
    ///
    /// # Errors
    /// The system's.
    pub fn spec(&self) -> Result<Spec> {
        self.configured().cloned()
    }

    fn configured(&self) -> Result<&Spec> {
        if let Some(spec) = self.spec.get() {
            return Ok(spec);
        }
        let config = self.directory.config()?;
        Ok(self.spec.get_or_init(|| config.spec))
    }

    fn of(directory: Directory) -> Self {
        Self { directory, spec: OnceLock::new() }
    }
}
