//! The runtime's operations, as they run in forked children (see [`crate::operation`]).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use brig_runtime::cgroup::{Cgroup, Hierarchies};
use brig_runtime::{
    CheckpointOptions, Console, Container, ContainerId, CreateOptions, CriuOptions, ErrorKind,
    ExecOptions, KillScope, RootfsMount, Runtime, Stdio,
};
use brig_shim_protocol::bundle;
use brig_shim_protocol::options::ProcessDetails;
use brig_shim_protocol::task::{PidsResponse, StatsResponse};
use brig_shim_protocol::ttrpc::{Code, Status};
use brig_shim_protocol::types::{Any, Empty, Mount, ProcessInfo};
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::external::External;
use crate::kernel_log;
use crate::metrics;
use crate::operation::{Memory, Outcome, Reply};

/// How a container's runtime is set up; kept in the bundle, so that `delete` finds what a dead shim made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// [`bundle::VERSION`] of the shim that wrote this.
    #[serde(default = "bundle::first")]
    pub(crate) version: u32,
    /// State directory.
    pub(crate) root: PathBuf,
    /// Cgroups are made by systemd.
    #[serde(default)]
    pub(crate) systemd_cgroup: bool,
    /// Enter the root file system without pivot_root(2).
    #[serde(default)]
    pub(crate) no_pivot: bool,
    /// Keep the session keyring.
    #[serde(default)]
    pub(crate) no_new_keyring: bool,
    /// An external runtime program; empty is the one that is linked in.
    #[serde(default)]
    pub(crate) binary: String,
    /// What comes before the external runtime's own words.
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    /// The bundle that holds these settings.
    #[serde(skip)]
    pub(crate) bundle: PathBuf,
}

impl Settings {
    /// The file in the bundle.
    pub(crate) const FILE_NAME: &'static str = bundle::SETTINGS_FILE;

    fn runtime(&self) -> Runtime {
        Runtime::new(self.root.clone()).systemd_cgroup(self.systemd_cgroup)
    }

    fn container(&self, id: &str) -> Result<Container, Status> {
        self.runtime().container(&parse_id(id)?).map_err(|error| status(&error))
    }

    fn cgroup(&self, id: &str) -> Result<Cgroup, Status> {
        match External::of(self, id) {
            Some(external) => external.cgroup(),
            None => self.container(id)?.cgroup().map_err(|error| status(&error)),
        }
    }
}

/// What to create.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Create<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) rootfs: &'a [Mount],
    /// Hand out a descriptor that reports out-of-memory kills.
    pub(crate) watch_memory: bool,
}

/// Moves the shim into a cgroup that is there already.
pub(crate) fn join_cgroup(path: &str) -> Result<(), Status> {
    let join = || {
        // From each hierarchy's root, as containerd reads it.
        let absolute = Path::new("/").join(path);
        let placement = Hierarchies::detect()?.placement(Some(&absolute), path)?;
        let join = Cgroup::open(&placement)?.prepare_join()?;
        join.all(rustix::process::getpid())
    };
    join().map_err(|error| {
        let cause = status(&error);
        Status { message: format!("move the shim into cgroup {path}: {}", cause.message), ..cause }
    })
}

/// Creates a container. `ends` are its standard streams, or empty for a terminal.
pub(crate) fn create(settings: &Settings, create: &Create<'_>, ends: Vec<OwnedFd>) -> Outcome {
    answer(|| {
        if let Some(external) = External::of(settings, create.id) {
            return create_externally(settings, create, &external, ends);
        }
        let terminal = ends.is_empty();
        let options = CreateOptions {
            stdio: stdio(ends),
            console: if terminal { Console::Return } else { Console::None },
            rootfs_mounts: create.rootfs.iter().map(rootfs_mount).collect(),
            no_pivot: settings.no_pivot,
            no_new_keyring: settings.no_new_keyring,
            ..CreateOptions::default()
        };
        let id = parse_id(create.id)?;
        let created = settings
            .runtime()
            .create(&id, create.bundle, options)
            .map_err(|error| status(&error))?;
        let mut reply = Reply { pid: created.pid.unsigned_abs(), ..Reply::default() };
        reply.private_pid_namespace =
            created.container.spec().is_ok_and(|spec| has_private_pid_namespace(&spec));
        let fds = descriptors(settings, create, &mut reply, created.console);
        Ok((reply, fds))
    })
}

fn create_externally(
    settings: &Settings,
    create: &Create<'_>,
    external: &External<'_>,
    ends: Vec<OwnedFd>,
) -> Result<Outcome, Status> {
    let rootfs: Vec<RootfsMount> = create.rootfs.iter().map(rootfs_mount).collect();
    let started = external.create(&rootfs, ends)?;
    let mut reply = Reply { pid: started.pid, ..Reply::default() };
    let spec = Spec::load(create.bundle.join("config.json"));
    reply.private_pid_namespace = spec.is_ok_and(|spec| has_private_pid_namespace(&spec));
    let fds = descriptors(settings, create, &mut reply, started.console);
    Ok((reply, fds))
}

/// The descriptors that go with the answer to Create: the terminal, and the memory's watch.
fn descriptors(
    settings: &Settings,
    create: &Create<'_>,
    reply: &mut Reply,
    console: Option<OwnedFd>,
) -> Vec<OwnedFd> {
    reply.has_console = console.is_some();
    let mut fds: Vec<OwnedFd> = console.into_iter().collect();
    if create.watch_memory {
        // Without a memory controller there is nothing to watch; the end still tells what it can.
        let cgroup = settings.cgroup(create.id).ok();
        if let Some(watch) = cgroup.and_then(|cgroup| cgroup.oom_watch().ok()) {
            reply.has_oom_watch = true;
            fds.push(watch.into());
        }
    }
    fds
}

/// Lets a created container run.
pub(crate) fn start(settings: &Settings, id: &str) -> Outcome {
    answer(|| {
        if let Some(external) = External::of(settings, id) {
            external.start()?;
            return Ok((Reply::default(), Vec::new()));
        }
        settings.container(id)?.start().map_err(|error| status(&error))?;
        Ok((Reply::default(), Vec::new()))
    })
}

/// Runs a further process. `process` is its JSON.
pub(crate) fn exec(settings: &Settings, id: &str, process: &[u8], ends: Vec<OwnedFd>) -> Outcome {
    answer(|| {
        if let Some(external) = External::of(settings, id) {
            let started = external.exec(process, ends)?;
            let has_console = started.console.is_some();
            let reply = Reply { pid: started.pid, has_console, ..Reply::default() };
            return Ok((reply, started.console.into_iter().collect()));
        }
        let process: Process = serde_json::from_slice(process).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("parse the process to run: {error}"))
        })?;
        let terminal = ends.is_empty();
        let options = ExecOptions {
            stdio: stdio(ends),
            console: if terminal { Console::Return } else { Console::None },
            ..ExecOptions::default()
        };
        let exec =
            settings.container(id)?.exec(&process, options).map_err(|error| status(&error))?;
        let has_console = exec.console.is_some();
        let reply = Reply { pid: exec.pid.unsigned_abs(), has_console, ..Reply::default() };
        Ok((reply, exec.console.into_iter().collect()))
    })
}

/// Saves a container, by the CRIU in the search path.
pub(crate) fn checkpoint(settings: &Settings, id: &str, options: CheckpointOptions) -> Outcome {
    empty(|| {
        if External::of(settings, id).is_some() {
            let message = "checkpoints by another runtime are not supported by this shim";
            return Err(Status::new(Code::Unimplemented, message));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute());
        let criu = places.find_map(|place| Some(place.join("criu")).filter(|file| file.is_file()));
        let Some(program) = criu else {
            let message = "criu is not in PATH: install it to save containers";
            return Err(Status::new(Code::FailedPrecondition, message));
        };
        let criu = CriuOptions { program, ..options.criu };
        let options = CheckpointOptions { criu, ..options };
        settings.container(id)?.checkpoint(&options).map_err(|error| status(&error))
    })
}

const KILL: i32 = 9;

/// Sends a signal to every process of a container.
pub(crate) fn kill_all(settings: &Settings, id: &str, signal: i32) -> Outcome {
    empty(|| match External::of(settings, id) {
        Some(external) => external.kill_all(signal),
        None => {
            settings.container(id)?.kill(signal, KillScope::All).map_err(|error| status(&error))
        }
    })
}

/// Removes what belongs to a container, killing what is left of it. One that is gone is fine.
pub(crate) fn delete(settings: &Settings, id: &str) -> Outcome {
    if let Some(external) = External::of(settings, id) {
        return empty(|| external.delete());
    }
    empty(|| match settings.container(id) {
        Ok(container) => match container.delete(true) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(status(&error)),
            _ => Ok(()),
        },
        Err(status) if status.code == Code::NotFound as i32 => Ok(()),
        Err(status) => Err(status),
    })
}

/// Freezes a container.
pub(crate) fn pause(settings: &Settings, id: &str) -> Outcome {
    empty(|| match External::of(settings, id) {
        Some(external) => external.freeze(true),
        None => settings.container(id)?.pause().map_err(|error| status(&error)),
    })
}

/// Thaws a container.
pub(crate) fn resume(settings: &Settings, id: &str) -> Outcome {
    empty(|| match External::of(settings, id) {
        Some(external) => external.freeze(false),
        None => settings.container(id)?.resume().map_err(|error| status(&error)),
    })
}

/// Changes limits, given as JSON.
pub(crate) fn update(settings: &Settings, id: &str, resources: &[u8]) -> Outcome {
    empty(|| {
        if let Some(external) = External::of(settings, id) {
            return external.update(resources);
        }
        let resources: LinuxResources = serde_json::from_slice(resources).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("parse the resources to set: {error}"))
        })?;
        settings.container(id)?.update(&resources).map_err(|error| status(&error))
    })
}

/// Lists a container's processes; `execs` are those that the shim started.
pub(crate) fn pids(settings: &Settings, id: &str, execs: &[(u32, String)]) -> Outcome {
    answer(|| {
        let pids = match External::of(settings, id) {
            Some(external) => external.pids()?,
            None => settings.container(id)?.pids().map_err(|error| status(&error))?,
        };
        let info = |pid: u32| {
            let exec = execs.iter().find(|exec| exec.0 == pid)?;
            Some(Any::pack(&ProcessDetails { exec_id: exec.1.clone() }))
        };
        let processes = pids.into_iter().map(i32::unsigned_abs);
        let processes = processes.map(|pid| ProcessInfo { pid, info: info(pid) }).collect();
        Ok((Reply::payload(&PidsResponse { processes }), Vec::new()))
    })
}

/// Measures a container.
pub(crate) fn stats(settings: &Settings, id: &str) -> Outcome {
    answer(|| {
        let stats = settings.cgroup(id)?.stats().map_err(|error| status(&error))?;
        let stats = Some(metrics::to_any(&stats));
        Ok((Reply::payload(&StatsResponse { stats }), Vec::new()))
    })
}

/// What is asked after init has ended: kills what would outlive it, and tells what its memory came to.
pub(crate) fn after_exit(settings: &Settings, id: &str, kill_rest: bool) -> Outcome {
    answer(|| {
        if kill_rest {
            // Nobody left is what is wanted.
            let _nobody = match External::of(settings, id) {
                Some(external) => external.kill_rest(),
                None => {
                    let killed = |container: Container| container.kill(KILL, KillScope::All);
                    settings
                        .container(id)
                        .and_then(|container| killed(container).map_err(|error| status(&error)))
                }
            };
        }
        let memory = settings.cgroup(id).ok().and_then(|cgroup| memory_of(&cgroup, id));
        Ok((Reply { memory, ..Reply::default() }, Vec::new()))
    })
}

/// What is asked when the kernel may have killed something in the container for want of memory.
pub(crate) fn memory(settings: &Settings, id: &str) -> Outcome {
    after_exit(settings, id, false)
}

/// What the memory of a container came to; `None` without a memory controller.
fn memory_of(cgroup: &Cgroup, id: &str) -> Option<Memory> {
    let stats = cgroup.memory_stats().ok()??;
    let victim = if stats.oom_kills > 0 { kernel_log::oom_victim(id) } else { None };
    let victim = victim.unwrap_or_default();
    Some(Memory {
        peak_bytes: stats.max_usage_bytes,
        limit_bytes: stats.limit_bytes,
        oom_kills: stats.oom_kills,
        victim_name: victim.name,
        victim_pid: victim.pid,
    })
}

fn answer(call: impl FnOnce() -> Result<Outcome, Status>) -> Outcome {
    call().unwrap_or_else(|status| (Reply::failure(status), Vec::new()))
}

fn empty(call: impl FnOnce() -> Result<(), Status>) -> Outcome {
    answer(|| call().map(|()| (Reply::payload(&Empty {}), Vec::new())))
}

fn parse_id(id: &str) -> Result<ContainerId, Status> {
    ContainerId::parse(id).map_err(|error| status(&error))
}

/// A failure of the runtime in the protocol's terms.
pub(crate) fn status(error: &brig_runtime::Error) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Integrity => Code::DataLoss,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        _ => Code::Unknown,
    };
    Status::new(code, error.chain())
}

fn stdio(ends: Vec<OwnedFd>) -> Stdio {
    let mut ends = ends.into_iter();
    Stdio { stdin: ends.next(), stdout: ends.next(), stderr: ends.next() }
}

fn rootfs_mount(mount: &Mount) -> RootfsMount {
    RootfsMount {
        fstype: mount.r#type.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        target: mount.target.clone(),
    }
}

fn has_private_pid_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| {
        namespaces.iter().any(|each| each.typ() == LinuxNamespaceType::Pid && each.path().is_none())
    })
}
