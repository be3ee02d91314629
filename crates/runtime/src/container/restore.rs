//! Bringing a saved container back by CRIU.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use brig_linux::mount::{MountAttributes, attribute};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{FileType, OFlags};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::checkpoint::{
    CriuOptions, EXTERNAL_NAMESPACES, check_caller, check_restorable, with_log,
};
use super::create::{
    Making, absolute, linux, process_of, run_create_hooks, send_pidfd, write_pid_file,
};
use super::plan::{Namespaces, Planning, namespaces};
use super::{Console, Container, ContainerId, CreateOptions, Created, Runtime};
use crate::bundle::{Config, validate};
use crate::cgroup::{Cgroup, Hierarchies};
use crate::criu::images;
use crate::criu::inspect::Expected;
use crate::criu::program::{Criu, Launch};
use crate::criu::rpc::{self, Message, Request, option};
use crate::error::{Error, ErrorKind, Result, failpoint};
use crate::process::adjust::{AdjustPlan, Change};
use crate::process::parent;
use crate::protection::{Protection, on};
use crate::rootfs::target::{self, Missing};
use crate::rootfs::{Action, RootfsPlan, RootfsStep};
use crate::security::{capabilities, seccomp};
use crate::state::{Directory, State, process_facts};
use crate::{network, terminal};

/// The log of a restore, in the work directory.
const LOG: &str = "restore.log";
/// What CRIU writes there besides.
const STATISTICS: &str = "stats-restore";
/// Below the container's directory: where its root and what is bound into it are attached for CRIU.
const PLACES: &str = "criu";
/// How long a failed restore waits for killed processes to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// How to bring a container back.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// What saving has too.
    pub criu: CriuOptions,
    /// As for a container that is created, as far as it applies to one that runs already.
    pub create: CreateOptions,
    /// The label of its processes, `apparmor:PROFILE` or `selinux:LABEL`, instead of the configured one.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts that were saved with one.
    pub lsm_mount_context: Option<String>,
}

impl Runtime {
    /// Makes a container from `bundle` that runs on where a saved one stopped. The images decide what its processes do, the
    /// configuration decides what they may: where CRIU makes more of them than it allows, they are killed before they run.
    ///
    /// # Errors
    /// As [`Runtime::create`]; `Denied` when the images give more than the configuration, or others may write to them; what
    /// CRIU failed with. Nothing is left of the container then.
    pub fn restore(
        &self,
        id: &ContainerId,
        bundle: &Path,
        options: RestoreOptions,
    ) -> Result<Created> {
        self.restore_container(id, bundle, options)
            .map_err(|error| error.context(format!("restore {id}")))
    }

    fn restore_container(
        &self,
        id: &ContainerId,
        bundle: &Path,
        options: RestoreOptions,
    ) -> Result<Created> {
        check_caller("restore")?;
        check_options(&options.create)?;
        let bundle = absolute(bundle)?;
        let config = Config::load(&bundle.join("config.json"))?;
        validate(&config.spec)?;
        terminal::check(&config.spec, &options.create.console)?;
        check_restorable(&config.spec)?;
        let images = images::open(&options.criu.images)?;
        images::check(images.as_fd())?;
        let directory = Directory::create(&self.root, id)?;
        let lock = directory.lock()?;
        let mut making = Making::new(self, &directory);
        let restored = making.restore(&bundle, &config, options, images.as_fd());
        if restored.is_ok() {
            making.done = true;
        }
        drop(making);
        drop(lock);
        let (pid, pidfd, console) = restored?;
        Ok(Created { container: Container::of(directory), pid, pidfd, console })
    }
}

/// Refuses what only a process that is yet to run can be given.
fn check_options(options: &CreateOptions) -> Result<()> {
    for (given, name) in [
        (options.preserve_fds > 0, "descriptors to pass on (--preserve-fds)"),
        (options.listen_fds > 0, "sockets to listen on (LISTEN_FDS)"),
        (options.notify, "a socket to say that it is ready (NOTIFY_SOCKET)"),
        (options.no_pivot, "a root without pivot_root (--no-pivot)"),
    ] {
        if given {
            let text = format!("restore with {name}");
            return Err(Error::new(ErrorKind::Unsupported, text)
                .with_advice("restored processes have what they were saved with"));
        }
    }
    Ok(())
}

type Restored = (i32, OwnedFd, Option<OwnedFd>);

/// Everything that CRIU is to find.
struct Prepared {
    rootfs: RootfsPlan,
    namespaces: Namespaces,
    /// Where each step of the root filesystem ends up, as the container sees it.
    places: Vec<PathBuf>,
    /// Where the root, then the trees of the steps are attached for CRIU.
    attached: Vec<PathBuf>,
    has_filter: bool,
}

impl Making<'_> {
    fn restore(
        &mut self,
        bundle: &Path,
        config: &Config,
        options: RestoreOptions,
        images: BorrowedFd<'_>,
    ) -> Result<Restored> {
        let RestoreOptions { criu: common, create, lsm_profile, lsm_mount_context } = options;
        let spec = &config.spec;
        let hierarchies = Hierarchies::detect()?;
        let (mut state, classes) = self.state(bundle, config, &create, &hierarchies)?;
        let resources = linux(spec)?.resources().clone().unwrap_or_default();
        if state.scope.is_none() {
            self.cgroup = Some(Cgroup::create_unrestricted(&state.cgroup, &resources)?);
            failpoint("cgroup-made")?;
        }
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
        let prepared = planning.prepare(&create, images)?;
        let own = common.open_work()?;
        let work = own.as_ref().map_or(images, AsFd::as_fd);
        images::make_way(work, &[LOG, STATISTICS])?;
        let profile = lsm_profile.or_else(|| configured_profile(spec));
        let mut message = common.message(spec, images, work, LOG);
        for (field, value) in
            [(option::LSM_PROFILE, &profile), (option::LSM_MOUNT_CONTEXT, &lsm_mount_context)]
        {
            if let Some(value) = value {
                message = message.bytes(field, value.as_bytes());
            }
        }
        let (console, stdio) = (create.console, create.stdio);
        let (mut launch, request) = prepared.launch(message, stdio, images)?;
        launch.cgroups = self.cgroup.as_ref().map(Cgroup::prepare_entry).transpose()?;
        let born_in = self.cgroup.as_ref().and_then(Cgroup::dir_fd);
        let criu = Criu::prepare(&common.program, &launch, born_in)?;
        let number = Pid::from_raw(criu.pid).ok_or_else(parent::silent)?;
        self.place(&state, number, hierarchies.mode(), &resources)?;
        let mut watch = Watch {
            making: self,
            spec,
            state: &mut state,
            prepared: &prepared,
            profile: profile.as_deref(),
            criu: criu.pid,
            master: None,
            refused: false,
        };
        let asked = criu
            .ask(&request, &mut |response, fds| watch.notice(&response.script, response.pid, fds));
        let (master, refused) = (watch.master.take(), watch.refused);
        drop(criu);
        let pid = asked.and_then(|response| response.restored.ok_or_else(parent::silent)).map_err(
            |error| {
                self.bury(state.pid);
                if refused { error } else { with_log(error, work, LOG) }
            },
        )?;
        if let Some(classes) = &classes {
            self.classes = Some(classes.groups.clone());
            classes.apply(pid)?;
            self.processes()?.into_iter().try_for_each(|pid| classes.groups.join(pid))?;
        }
        let to = HandOver { console, pidfd_socket: create.pidfd_socket, pid_file: create.pid_file };
        to.deliver(pid, master).inspect(|_| {
            // What is left of it goes with the container.
            let _ = std::fs::remove_dir_all(self.directory.path().join(PLACES));
        })
    }

    /// After a failure: ends what is left, and takes note of the end of an init that was made already, as a child of this
    /// process.
    fn bury(&self, init: i32) {
        // What cannot be killed is found by delete --force.
        let _ = self.cgroup.as_ref().map(Cgroup::kill_all);
        if init > 0
            && let Ok(pidfd) = brig_linux::pidfd::open(init)
            && matches!(brig_linux::pidfd::wait_end(pidfd.as_fd(), Some(PATIENCE)), Ok(true))
        {
            let _ = brig_linux::pidfd::wait_child(pidfd.as_fd());
        }
    }

    fn processes(&self) -> Result<Vec<i32>> {
        let cgroup = self.cgroup.as_ref().ok_or_else(parent::silent)?;
        Ok(cgroup.procs()?.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }
}

/// Who is told of a restored container.
struct HandOver {
    console: Console,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl HandOver {
    fn deliver(self, pid: i32, master: Option<OwnedFd>) -> Result<Restored> {
        let pidfd = brig_linux::pidfd::open(pid)?;
        let master = terminal::deliver(master, self.console)?;
        if let Some(path) = self.pidfd_socket {
            send_pidfd(&path, pidfd.as_fd())?;
        }
        if let Some(path) = self.pid_file {
            write_pid_file(&path, pid)?;
        }
        Ok((pid, pidfd, master))
    }
}

impl Planning<'_> {
    fn prepare(&self, create: &CreateOptions, images: BorrowedFd<'_>) -> Result<Prepared> {
        let namespaces = namespaces(self.linux)?;
        let rootfs = self.rootfs_plan(create, &namespaces)?;
        let filter = self.linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
        if let Some(filter) = filter.as_ref().filter(|_| on(Protection::Checkpoint)) {
            images::check_seccomp(images, filter)?;
        }
        let root = rootfs.tree.get().map_err(|errno| Error::system("open the root", errno))?;
        make_targets(root, &rootfs.steps)?;
        let places = rootfs.steps.iter().map(|step| place(root, step)).collect();
        let base = self.directory.path().join(PLACES);
        let mut attached = vec![base.join("root")];
        let attempt = |source| Error::system("make a place for criu", source);
        std::fs::create_dir_all(&attached[0]).map_err(attempt)?;
        for (index, tree) in rootfs.steps.iter().filter_map(RootfsStep::tree).enumerate() {
            let place = base.join(index.to_string());
            let is_file = !tree.is_late()
                && tree
                    .get()
                    .and_then(rustix::fs::fstat)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory);
            match is_file {
                true => std::fs::File::create(&place).map(drop),
                false => std::fs::create_dir(&place),
            }
            .map_err(attempt)?;
            attached.push(place);
        }
        Ok(Prepared { rootfs, namespaces, places, attached, has_filter: filter.is_some() })
    }
}

/// Makes what is missing of the places to mount at, but for those on filesystems that are restored with what is in them.
fn make_targets(root: BorrowedFd<'_>, steps: &[RootfsStep]) -> Result<()> {
    let filesystems: Vec<&[u8]> = steps
        .iter()
        .filter(|step| matches!(step.action, Action::Filesystem(_)))
        .map(|step| step.target.to_bytes())
        .collect();
    let inside = |path: &[u8]| {
        filesystems.iter().any(|one| {
            path.strip_prefix(*one).is_some_and(|rest| one.is_empty() || rest.starts_with(b"/"))
        })
    };
    for step in steps.iter().filter(|step| !inside(step.target.to_bytes())) {
        let missing = match &step.action {
            Action::Filesystem(_) => Missing::Directory,
            Action::Attach { tree, .. } => {
                let stat = tree.get().and_then(rustix::fs::fstat);
                let stat = stat.map_err(|errno| Error::system(step.label.clone(), errno))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Missing::Directory,
                    _ => Missing::File,
                }
            }
            _ => continue,
        };
        target::find_or_make(root, &step.target, missing)
            .map_err(|errno| Error::system(step.label.clone(), errno))?;
    }
    Ok(())
}

/// Where a step ends up: links in the root filesystem are followed as far as there is anything.
fn place(root: BorrowedFd<'_>, step: &RootfsStep) -> PathBuf {
    let whole = Path::new(std::ffi::OsStr::from_bytes(step.target.to_bytes()));
    let mut found = PathBuf::from("/");
    let mut rest = whole;
    for ancestor in whole.ancestors() {
        let Ok(path) = CString::new(ancestor.as_os_str().as_bytes()) else { break };
        if let Ok(fd) = target::find(root, &path) {
            // Of a tree that is attached nowhere, the kernel tells paths from its top.
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            found = std::fs::read_link(link).unwrap_or_else(|_| Path::new("/").join(ancestor));
            rest = whole.strip_prefix(ancestor).unwrap_or(rest);
            break;
        }
    }
    if rest.as_os_str().is_empty() { found } else { found.join(rest) }
}

impl Prepared {
    fn launch(
        &self,
        message: Message,
        stdio: super::Stdio,
        images: BorrowedFd<'_>,
    ) -> Result<(Launch<'_>, Vec<u8>)> {
        let zero = |_| Error::new(ErrorKind::InvalidInput, "a path for criu has a zero byte");
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(zero);
        let trees = self.rootfs.steps.iter().filter_map(RootfsStep::tree);
        let mounts = std::iter::once(&self.rootfs.tree)
            .chain(trees)
            .zip(&self.attached)
            .map(|(tree, place)| Ok((tree, c_path(place)?)))
            .collect::<Result<_>>()?;
        let mut launch = Launch {
            mounts,
            new_mounts: true,
            new_cgroup: self.namespaces.new_cgroup,
            ..Launch::default()
        };
        let mut message = message
            .switch(option::EVASIVE_DEVICES, true)
            .switch(option::RESTORE_AS_SIBLING, true)
            .bytes(option::ROOT, self.attached[0].as_os_str().as_bytes());
        let with_trees = self.rootfs.steps.iter().zip(&self.places);
        let with_trees = with_trees.filter(|(step, _)| step.tree().is_some());
        for ((_, place), source) in with_trees.zip(&self.attached[1..]) {
            let (key, value) = (place.as_os_str().as_bytes(), source.as_os_str().as_bytes());
            message = message.pair(option::EXTERNAL_MOUNT, key, value);
        }
        for masked in &self.rootfs.masked {
            let key = [b"/", masked.to_bytes()].concat();
            message = message.pair(option::EXTERNAL_MOUNT, &key, b"/dev/null");
        }
        for device in &self.rootfs.devices {
            let path = device.host.to_bytes();
            message = message.pair(option::EXTERNAL_MOUNT, path, path);
        }
        message = self.namespaces(message, &mut launch)?;
        for (number, name) in images::descriptors(images)?.into_iter().enumerate() {
            let given = [&stdio.stdin, &stdio.stdout, &stdio.stderr][number];
            if let Some(name) = name.filter(|name| may_inherit(number, given.as_ref(), name)) {
                message = message.inherit(&name, number as u64);
            }
        }
        launch.stdio = [stdio.stdin, stdio.stdout, stdio.stderr];
        Ok((launch, rpc::request(Request::Restore, &message)))
    }

    /// The namespaces that are joined.
    fn namespaces(&self, mut message: Message, launch: &mut Launch<'_>) -> Result<Message> {
        for join in &self.namespaces.joins {
            let external =
                EXTERNAL_NAMESPACES.iter().find(|(kind, ..)| kind_of(*kind) == Some(join.kind));
            let Some((.., key)) = external else {
                let name = name_of(join.kind).as_bytes();
                message =
                    message.pair(option::JOIN_NAMESPACE, name, join.path.as_os_str().as_bytes());
                continue;
            };
            let copy = join.fd.try_clone();
            let fd = copy.map_err(|source| Error::system("share a namespace", source))?;
            message = message.inherit(key, u64::try_from(fd.as_raw_fd()).unwrap_or(0));
            launch.inherited.push(fd);
        }
        Ok(message)
    }
}

fn kind_of(kind: LinuxNamespaceType) -> Option<LinkNameSpaceType> {
    match kind {
        LinuxNamespaceType::Network => Some(LinkNameSpaceType::Network),
        LinuxNamespaceType::Pid => Some(LinkNameSpaceType::ProcessID),
        _ => None,
    }
}

fn name_of(kind: LinkNameSpaceType) -> &'static str {
    match kind {
        LinkNameSpaceType::Network => "net",
        LinkNameSpaceType::ProcessID => "pid",
        LinkNameSpaceType::InterProcessCommunication => "ipc",
        LinkNameSpaceType::HostNameAndNISDomainName => "uts",
        LinkNameSpaceType::User => "user",
        LinkNameSpaceType::ControlGroup => "cgroup",
        LinkNameSpaceType::Time => "time",
        _ => "mnt",
    }
}

/// Whether one of the caller's descriptors may stand for one that was saved. CRIU opens a file anew, with the access that
/// the image says: what the caller only reads must not be written to.
fn may_inherit(number: usize, given: Option<&OwnedFd>, name: &str) -> bool {
    if name.starts_with("pipe:") {
        return true;
    }
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let fd = given.map_or_else(|| standard[number.min(2)], AsFd::as_fd);
    let null = rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    });
    let access = rustix::fs::fcntl_getfl(fd).unwrap_or(OFlags::RDONLY) & OFlags::RWMODE;
    null || access != OFlags::RDONLY
}

/// The label of the configuration, as CRIU takes it.
fn configured_profile(spec: &Spec) -> Option<String> {
    let process = spec.process().as_ref()?;
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    given(process.apparmor_profile())
        .map(|profile| format!("apparmor:{profile}"))
        .or_else(|| given(process.selinux_label()).map(|label| format!("selinux:{label}")))
}

/// What is done at points of CRIU's work.
struct Watch<'a, 'b> {
    making: &'a Making<'b>,
    spec: &'a Spec,
    state: &'a mut State,
    prepared: &'a Prepared,
    profile: Option<&'a str>,
    criu: i32,
    master: Option<OwnedFd>,
    /// Something else than CRIU failed.
    refused: bool,
}

impl Watch<'_, '_> {
    fn notice(&mut self, script: &str, pid: Option<i32>, fds: Vec<OwnedFd>) -> Result<()> {
        let done = match script {
            "setup-namespaces" => self.namespaces_are_made(pid.ok_or_else(parent::silent)?),
            "orphan-pts-master" => {
                self.master = fds.into_iter().next();
                Ok(())
            }
            "pre-resume" => {
                // CRIU goes on whatever this is answered with.
                let checked = self.check();
                if checked.is_err() {
                    self.kill();
                }
                checked
            }
            _ => Ok(()),
        };
        self.refused |= done.is_err();
        done
    }

    fn namespaces_are_made(&mut self, pid: i32) -> Result<()> {
        self.state.pid = pid;
        let linux = linux(self.spec)?;
        let new_network =
            self.prepared.namespaces.clone_flags & brig_linux::process::flags::NEW_NETWORK;
        let path = format!("/proc/{pid}/ns/net");
        let network = std::fs::File::open(&path)
            .map_err(|source| Error::system(format!("open {path}"), source))?;
        if new_network != 0 {
            parent::set_loopback_up(network.as_fd())?;
        }
        network::attach(&network::prepare(linux)?, network.as_fd())?;
        run_create_hooks(self.spec, self.state)
    }

    /// The processes are complete, and stopped.
    fn check(&mut self) -> Result<()> {
        let pid = self.state.pid;
        self.state.start_time = process_facts(pid).map_or(0, |facts| facts.start_time);
        let checks = on(Protection::Checkpoint);
        if checks {
            self.expected(pid)?.check_namespaces()?;
        }
        if self.prepared.rootfs.read_only_root {
            self.make_root_read_only(pid)?;
        }
        if checks {
            self.expected(pid)?.check()?;
        }
        self.making.directory.write(self.state)?;
        failpoint("state-renamed")
    }

    /// CRIU leaves the mount of the root as it finds it, and must be able to write there itself.
    fn make_root_read_only(&self, init: i32) -> Result<()> {
        let attributes = MountAttributes::default().set(attribute::READ_ONLY);
        let step = RootfsStep {
            action: Action::Change { attributes, recursive: false },
            target: c"".to_owned(),
            target_nofollow: false,
            label: "make the root filesystem read-only".to_owned(),
        };
        let mut namespaces = ThreadNameSpaceType::MOUNT;
        let users = self.prepared.namespaces.clone_flags & brig_linux::process::flags::NEW_USER;
        namespaces.set(ThreadNameSpaceType::USER, users != 0);
        parent::adjust_mounts(&AdjustPlan {
            init: brig_linux::pidfd::open(init)?,
            namespaces,
            root: None,
            change: Change::Add,
            steps: vec![step],
        })
    }

    fn expected(&self, init: i32) -> Result<Expected<'_>> {
        let (linux, process) = (linux(self.spec)?, process_of(self.spec)?);
        let namespaces = &self.prepared.namespaces;
        let new = linux.namespaces().iter().flatten().filter(|own| own.path().is_none());
        let new = new.filter_map(|own| match own.typ() {
            LinuxNamespaceType::User => Some("user"),
            LinuxNamespaceType::Pid => Some("pid"),
            LinuxNamespaceType::Network => Some("net"),
            LinuxNamespaceType::Mount => Some("mnt"),
            LinuxNamespaceType::Ipc => Some("ipc"),
            LinuxNamespaceType::Uts => Some("uts"),
            LinuxNamespaceType::Cgroup => Some("cgroup"),
            LinuxNamespaceType::Time => None,
        });
        let others = self.making.processes()?.into_iter();
        let others = others.filter(|pid| *pid != self.criu && *pid != init);
        Ok(Expected {
            rootfs: &self.prepared.rootfs,
            places: &self.prepared.places,
            capabilities: capabilities::parse(process.capabilities().as_ref()),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            has_filter: self.prepared.has_filter,
            label: self.profile.and_then(|profile| profile.split_once(':')).map(|(_, label)| label),
            new: new.collect(),
            joined: namespaces.joins.iter().map(|join| (name_of(join.kind), &join.fd)).collect(),
            id_maps: (
                linux.uid_mappings().as_deref().unwrap_or_default(),
                linux.gid_mappings().as_deref().unwrap_or_default(),
            ),
            out_of_memory_score: process.oom_score_adj(),
            processes: std::iter::once(init).chain(others).collect(),
        })
    }

    /// Kills what is stopped first, and CRIU, which holds it, last: nothing runs in between.
    fn kill(&self) {
        let others = self.making.processes().unwrap_or_default();
        let others = others.into_iter().filter(|pid| *pid != self.criu);
        for pid in others.chain([self.criu]) {
            if let Ok(pidfd) = brig_linux::pidfd::open(pid) {
                let _ = brig_linux::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
    }
}
