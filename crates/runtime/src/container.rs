//! Containers: the handle types, and the operations of the OCI lifecycle.

mod options;

pub use options::{
    Console, ContainerId, CreateOptions, ExecOptions, KillScope, RootfsMount, Status, Stdio,
};

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A directory that holds the state of containers, and how to make them.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "the operations land next")]
pub struct Runtime {
    root: PathBuf,
    systemd_cgroup: bool,
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
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

fn unfinished<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "this part of the runtime has not landed yet"))
}

impl Runtime {
    /// A runtime that keeps its state under `root` (made on first use, mode 0700).
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, systemd_cgroup: false }
    }

    /// Whether cgroups are made by systemd (`slice:prefix:name` cgroup paths).
    #[must_use]
    pub fn systemd_cgroup(self, systemd_cgroup: bool) -> Self {
        Self { systemd_cgroup, ..self }
    }

    /// Creates a container from `bundle`: its init waits, set up completely, for [`Container::start`].
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput` for the configuration, `Unsupported`, or what the kernel refused.
    pub fn create(
        &self,
        _id: &ContainerId,
        _bundle: &Path,
        _options: CreateOptions,
    ) -> Result<Created> {
        unfinished()
    }

    /// A container that was created before, by any process.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container(&self, _id: &ContainerId) -> Result<Container> {
        unfinished()
    }

    /// All containers under the root, by id.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> Result<Vec<ContainerState>> {
        unfinished()
    }
}

impl Container {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Lets init execute the user's program; answers once it did.
    ///
    /// # Errors
    /// `Conflict` when it is not in status `Created`; what a hook or the exec failed with.
    pub fn start(&self) -> Result<()> {
        unfinished()
    }

    /// Sends a signal, by number.
    ///
    /// # Errors
    /// `Conflict` when the container has stopped.
    pub fn kill(&self, _signal: i32, _scope: KillScope) -> Result<()> {
        unfinished()
    }

    /// Removes what belongs to a stopped container; `force` kills it first.
    ///
    /// # Errors
    /// `Conflict` when it runs and `force` is not set; otherwise all that could not be removed.
    pub fn delete(&self, _force: bool) -> Result<()> {
        unfinished()
    }

    /// The OCI state.
    ///
    /// # Errors
    /// `NotFound` once deleted.
    pub fn state(&self) -> Result<ContainerState> {
        unfinished()
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// `NotFound` once deleted.
    pub fn status(&self) -> Result<Status> {
        unfinished()
    }

    /// Runs a further process inside.
    ///
    /// # Errors
    /// `Conflict` when the container does not run; otherwise as [`Runtime::create`].
    pub fn exec(&self, _process: &Process, _options: ExecOptions) -> Result<Exec> {
        unfinished()
    }

    /// The numbers of all its processes, in the caller's PID namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn pids(&self) -> Result<Vec<i32>> {
        unfinished()
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn pause(&self) -> Result<()> {
        unfinished()
    }

    /// Thaws what [`Container::pause`] froze.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub fn resume(&self) -> Result<()> {
        unfinished()
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// `InvalidInput`, or what the kernel refused.
    pub fn update(&self, _resources: &LinuxResources) -> Result<()> {
        unfinished()
    }
}
