//! Making a container.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use brig_linux::process::flags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Spec};
use rustix::process::Pid;
use rustix::thread::LinkNameSpaceType;

use super::plan::Planning;
use super::{Console, Container, ContainerId, CreateOptions, Created, Runtime};
use crate::bundle::{Config, validate};
use crate::cgroup::systemd::Scope;
use crate::cgroup::{Cgroup, Hierarchies, Mode};
use crate::error::{Error, ErrorKind, Result, failpoint};
use crate::process::id_maps::IdMaps;
use crate::process::message::Message;
use crate::process::parent::{self, SpawnError, Spawned};
use crate::process::plan::InitPlan;
use crate::security::rlimits;
use crate::state::{Directory, State, process_facts};
use crate::{hooks, network, notify, resctrl, terminal};

impl Runtime {
    pub(super) fn create_container(
        &self,
        id: &ContainerId,
        bundle: &Path,
        options: CreateOptions,
    ) -> Result<Created> {
        let bundle = absolute(bundle)?;
        let mut config = Config::load(&bundle.join("config.json"))?;
        validate(&config.spec)?;
        terminal::check(&config.spec, &options.console)?;
        self.check_rootless(linux(&config.spec)?)?;
        let directory = Directory::create(&self.root, id)?;
        let lock = directory.lock()?;
        let mut making = Making::new(self, &directory);
        let prepared = match options.notify {
            true => notify::prepare(&mut config.spec, &directory.notify()),
            false => Ok(()),
        };
        let created = prepared.and_then(|()| making.make(&bundle, &config, options));
        if created.is_ok() {
            making.done = true;
        }
        drop(making);
        drop(lock);
        let (pid, pidfd, console) = created?;
        Ok(Created { container: Container::of(directory), pid, pidfd, console })
    }
}

impl Runtime {
    /// Whoever is not root has no rights but over a user namespace of its own.
    fn check_rootless(&self, linux: &Linux) -> Result<()> {
        if !is_unprivileged() {
            return Ok(());
        }
        let mut namespaces = linux.namespaces().iter().flatten();
        let user = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User);
        let Some(user) = user else {
            let text = "linux.namespaces without user";
            return Err(Error::new(ErrorKind::InvalidInput, text).with_advice(
                "without root, a container needs a user namespace; `spec --rootless` writes such a configuration",
            ));
        };
        if user.path().is_some() { Ok(()) } else { self.id_maps(linux).check() }
    }

    pub(super) fn id_maps<'a>(&'a self, linux: &'a Linux) -> IdMaps<'a> {
        IdMaps {
            users: linux.uid_mappings().as_deref().unwrap_or_default(),
            groups: linux.gid_mappings().as_deref().unwrap_or_default(),
            unprivileged: is_unprivileged(),
            programs: self.id_map_programs.as_ref(),
        }
    }
}

/// Whether this process has no rights over namespaces that it has not made.
pub(super) fn is_unprivileged() -> bool {
    !rustix::process::geteuid().is_root()
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|source| Error::system(format!("find bundle {}", path.display()), source))
}

/// A container being made; what exists of it goes when it is dropped unfinished.
pub(super) struct Making<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) directory: &'a Directory,
    pub(super) cgroup: Option<Cgroup>,
    scope: Option<Scope>,
    pub(super) classes: Option<resctrl::Groups>,
    process: Option<Spawned>,
    pub(super) done: bool,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // The error that stopped the making is the one to report; what cannot be removed is found by delete --force.
        if let Some(process) = self.process.take() {
            let _ = brig_linux::pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
            let _ = brig_linux::pidfd::wait_child(process.pidfd.as_fd());
        }
        let removed = self.cgroup.take().is_none_or(|cgroup| cgroup.remove().is_ok());
        let removed = self.scope.take().is_none_or(|scope| scope.stop().is_ok()) && removed;
        let removed = self.classes.take().is_none_or(|groups| groups.remove().is_ok()) && removed;
        if removed {
            let _ = self.directory.remove();
        }
    }
}

impl<'a> Making<'a> {
    pub(super) fn new(runtime: &'a Runtime, directory: &'a Directory) -> Self {
        let (cgroup, scope, classes, process) = (None, None, None, None);
        Self { runtime, directory, cgroup, scope, classes, process, done: false }
    }
}

type Made = (i32, OwnedFd, Option<OwnedFd>);

impl Making<'_> {
    fn make(&mut self, bundle: &Path, config: &Config, options: CreateOptions) -> Result<Made> {
        let spec = &config.spec;
        let hierarchies = Hierarchies::detect()?;
        let (mut state, classes) = self.state(bundle, config, &options, &hierarchies)?;
        let resources = linux(spec)?.resources().clone().unwrap_or_default();
        if state.scope.is_none() {
            self.cgroup = Some(Cgroup::create_unrestricted(&state.cgroup, &resources)?);
            failpoint("cgroup-made")?;
        }
        let limits = process_limits(spec)?;
        let console = options.console.take_kind();
        let (pid_file, pidfd_socket) = (options.pid_file.clone(), options.pidfd_socket.clone());
        let seen = hierarchies.completed(&state.cgroup);
        let planning = Planning {
            directory: self.directory,
            spec,
            linux: linux(spec)?,
            state: &state,
            seen: &seen,
            cgroup: self.cgroup.as_ref(),
            id_maps: self.runtime.id_maps(linux(spec)?),
            rootless: self.runtime.rootless,
        };
        let plan = planning.init_plan(options)?;
        let born_in = self.cgroup.as_ref().and_then(Cgroup::dir_fd);
        let spawned = parent::spawn_init(&plan, born_in).map_err(|error| match error {
            SpawnError::Step(failure) => parent::explain(&failure, &plan),
            SpawnError::Own(error) => error,
        })?;
        let pid = spawned.pid;
        self.process = Some(spawned);
        failpoint("cloned")?;
        let number = Pid::from_raw(pid).ok_or_else(parent::silent)?;
        self.place(&state, number, hierarchies.mode(), &resources)
            .and_then(|()| self.equip(&plan, spec, number, &limits))
            // Init works meanwhile, and what is wrong with it then is that it has failed.
            .map_err(|error| self.reported(&plan).unwrap_or(error))?;
        if let Some(classes) = &classes {
            self.classes = Some(classes.groups.clone());
            classes.apply(pid)?;
        }
        let spawned = self.process.as_ref().ok_or_else(parent::silent)?;
        state.pid = pid;
        state.start_time = process_facts(pid).map_or(0, |facts| facts.start_time);
        let hook_state = HookState { fd: plan.hook_state.as_ref(), state: &state };
        hook_state.write("creating")?;
        if let Some(agent) = &plan.process.agent {
            agent.describe(&state, "created", pid)?;
        }
        spawned.channel.go()?;
        let master =
            parent::expect_ready(&spawned.channel, &plan, || run_create_hooks(spec, &state))?;
        failpoint("mounted")?;
        hook_state.write("created")?;
        let master = terminal::deliver(master, console)?;
        if let Some(path) = pidfd_socket {
            send_pidfd(&path, spawned.pidfd.as_fd())?;
        }
        if let Some(path) = pid_file {
            write_pid_file(&path, pid)?;
        }
        self.directory.write(&state)?;
        failpoint("state-renamed")?;
        let pidfd = spawned.pidfd.try_clone();
        let pidfd = pidfd.map_err(|source| Error::system("duplicate init's descriptor", source))?;
        Ok((pid, pidfd, master))
    }

    /// What init has said, if it said that it failed.
    fn reported(&self, plan: &InitPlan) -> Option<Error> {
        match self.process.as_ref()?.channel.receive_sent() {
            Ok(Some((Message::Failed(failure), _))) => Some(parent::explain(&failure, plan)),
            _ => None,
        }
    }

    /// Decides where everything of the container will be, and writes it down before anything exists, so that whatever a
    /// crash leaves can be found and removed.
    pub(super) fn state(
        &self,
        bundle: &Path,
        config: &Config,
        options: &CreateOptions,
        hierarchies: &Hierarchies,
    ) -> Result<(State, Option<resctrl::Plan>)> {
        let linux = linux(&config.spec)?;
        let id = self.directory.id();
        let path = linux.cgroups_path().as_deref();
        let scope = match self.runtime.systemd_cgroup {
            false => None,
            true => Some(Scope::parse(path, id.as_str(), self.runtime.systemd_bus.as_deref())?),
        };
        let rootless = self.runtime.rootless;
        let named = path.is_some_and(|path| !path.as_os_str().is_empty());
        let placement = match &scope {
            None if rootless && !named => hierarchies.delegated(id.as_str())?,
            None => hierarchies.placement(path, id.as_str())?,
            Some(scope) => hierarchies.placement(Some(&scope.cgroup_path()?), id.as_str())?,
        };
        let placement = match (rootless, &scope) {
            (false, _) => placement,
            (true, None) => placement.unprivileged(),
            (true, Some(_)) => placement.unprivileged().of_systemd(),
        };
        let mut state = State::new(id, bundle, config, placement);
        state.scope = scope;
        state.no_pivot = options.no_pivot;
        state.no_new_keyring = options.no_new_keyring;
        let classes = match linux.intel_rdt() {
            None => None,
            Some(wanted) => {
                Some(resctrl::Plan::new(&resctrl::mount_point()?, wanted, id.as_str())?)
            }
        };
        state.resctrl = classes.as_ref().map(|classes| classes.groups.clone());
        self.directory.write_config(&config.bytes)?;
        self.directory.write(&state)?;
        failpoint("state-written")?;
        Ok((state, classes))
    }

    /// Completes init's cgroup; where systemd makes that, which it only does around a process, puts init into it.
    pub(super) fn place(
        &mut self,
        state: &State,
        init: Pid,
        mode: Mode,
        resources: &LinuxResources,
    ) -> Result<()> {
        match (&mut self.cgroup, &state.scope) {
            (None, Some(scope)) => {
                self.scope = Some(scope.clone());
                scope.start(init, mode, resources, &state.annotations)?;
                let cgroup = self.cgroup.insert(Cgroup::adopt(&state.cgroup, resources)?);
                cgroup.prepare_join()?.all(init)
            }
            // It is born in one half and enters the other, when it hears that nothing is missing there.
            (Some(cgroup), _) => cgroup.restrict_devices(resources),
            (None, None) => Ok(()),
        }
    }

    /// Gives init, which waits, what only its parent can give it.
    fn equip(
        &self,
        plan: &InitPlan,
        spec: &Spec,
        init: Pid,
        limits: &[rlimits::Limit],
    ) -> Result<()> {
        let linux = linux(spec)?;
        let pid = init.as_raw_nonzero().get();
        if plan.clone_flags & flags::NEW_USER != 0 {
            self.runtime.id_maps(linux).write(pid)?;
        }
        if let Some(value) = process_of(spec)?.oom_score_adj() {
            parent::set_oom_score_adjustment(pid, value)?;
        }
        rlimits::apply(init, limits)?;
        let devices = network::prepare(linux)?;
        if devices.is_empty() {
            return Ok(());
        }
        network::attach(&devices, network_namespace(plan, pid)?.as_fd())
    }
}

/// The network namespace that init is in, or will enter.
fn network_namespace(plan: &InitPlan, pid: i32) -> Result<OwnedFd> {
    let joined = plan.joins.iter().find(|join| join.kind == LinkNameSpaceType::Network);
    let opened = match joined {
        Some(join) => join.fd.try_clone(),
        None => std::fs::File::open(format!("/proc/{pid}/ns/net")).map(Into::into),
    };
    opened.map_err(|source| Error::system("open the container's network namespace", source))
}

/// The OCI state for hooks inside the container, in memory that init shares.
struct HookState<'a> {
    fd: Option<&'a OwnedFd>,
    state: &'a State,
}

impl HookState<'_> {
    fn write(&self, status: &str) -> Result<()> {
        let Some(fd) = self.fd else { return Ok(()) };
        let bytes = oci_state(self.state, status);
        let failed = |errno| Error::system("write the state for hooks", errno);
        rustix::fs::ftruncate(fd, 0).map_err(failed)?;
        rustix::io::pwrite(fd, &bytes, 0).map(drop).map_err(failed)
    }
}

/// The state as the specification defines it, as hooks read it.
pub(super) fn oci_state(state: &State, status: &str) -> Vec<u8> {
    state.as_oci(status).to_string().into_bytes()
}

pub(super) fn run_create_hooks(spec: &Spec, state: &State) -> Result<()> {
    let Some(configured) = spec.hooks() else { return Ok(()) };
    let text = oci_state(state, "creating");
    let prestart = configured.prestart().as_deref().unwrap_or_default();
    hooks::run(prestart, "prestart", &text)?;
    let create_runtime = configured.create_runtime().as_deref().unwrap_or_default();
    hooks::run(create_runtime, "createRuntime", &text)
}

/// Writes the number of a process, complete or not at all.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let attempt = |source| Error::system(format!("write pid file {}", path.display()), source);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    std::fs::File::create(&new)
        .and_then(|mut file| write!(file, "{pid}"))
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(attempt)
}

/// Sends the descriptor of a process to whoever listens on a socket.
pub(super) fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = brig_linux::fd::connect_unix(path)?;
    brig_linux::fd::send_with_fds(socket.as_fd(), b"pidfd", &[pidfd]).map(drop).map_err(|errno| {
        Error::system(format!("send the process's descriptor to {}", path.display()), errno)
    })
}

pub(super) fn linux(spec: &Spec) -> Result<&Linux> {
    spec.linux().as_ref().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "linux is missing"))
}

pub(super) fn process_of(spec: &Spec) -> Result<&oci_spec::runtime::Process> {
    spec.process().as_ref().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "process is missing"))
}

fn process_limits(spec: &Spec) -> Result<Vec<rlimits::Limit>> {
    rlimits::parse(process_of(spec)?.rlimits().as_deref().unwrap_or_default())
}

impl Console {
    /// The destination, by itself.
    pub(super) fn take_kind(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Socket(path) => Self::Socket(path.clone()),
            Self::Return => Self::Return,
        }
    }
}
