//! Saving a container by CRIU.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::{Mode, OFlags};

use super::create::{is_unprivileged, linux};
use super::{Container, Status};
use crate::criu::program::{Criu, Launch};
use crate::criu::rpc::{self, Message, Request, option};
use crate::criu::{images, mount_table};
use crate::error::{Error, ErrorKind, Result};
use crate::rootfs::{devices, mounts, target};
use crate::state::State;

/// The log of a dump, in the work directory.
const LOG: &str = "dump.log";
/// What CRIU writes there besides.
const STATISTICS: &str = "stats-dump";
/// The names by which network and PID namespaces that are joined are known in images, as in runc's.
pub(super) const EXTERNAL_NAMESPACES: [(LinuxNamespaceType, &str, &str); 2] = [
    (LinuxNamespaceType::Network, "net", "extRootNetNS"),
    (LinuxNamespaceType::Pid, "pid", "extRootPidNS"),
];
/// The annotation that names a configuration file for CRIU, and the file where it is absent, as in runc.
const CONFIG_ANNOTATION: &str = "org.criu.config";
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
/// `criu_cg_mode` IGNORE: the cgroup of a container comes from its configuration.
const CGROUPS_IGNORE: u64 = 0;

/// What saving and restoring have in common.
#[derive(Clone, Debug, Default)]
pub struct CriuOptions {
    /// The CRIU program.
    pub program: PathBuf,
    /// The directory of the images: the caller's own, to which nobody else may write.
    pub images: PathBuf,
    /// The directory of the log; that of the images without one.
    pub work: Option<PathBuf>,
    /// Save or restore established TCP connections.
    pub tcp_established: bool,
    /// Allow Unix sockets whose other end is outside.
    pub external_unix_sockets: bool,
    /// Allow a session and a terminal from outside.
    pub shell_job: bool,
    /// Save or restore file locks.
    pub file_locks: bool,
    /// Leave out memory that images of the dump before have.
    pub auto_dedup: bool,
}

/// How to save a container.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// What restoring has too.
    pub criu: CriuOptions,
    /// The images of an earlier [`CheckpointOptions::pre_dump`], relative to those of this one.
    pub parent: Option<PathBuf>,
    /// Let the container run on, instead of removing it.
    pub leave_running: bool,
    /// Drop TCP connections that are not established yet.
    pub tcp_skip_in_flight: bool,
    /// Give files that have lost their name one for the time being.
    pub link_remap: bool,
    /// Save the memory alone, to save only what is written since at the next time; the container runs on.
    pub pre_dump: bool,
    /// Address and port of a `criu page-server` that takes the memory.
    pub page_server: Option<(String, u16)>,
}

/// Refuses callers that CRIU cannot work for.
pub(super) fn check_caller(verb: &str) -> Result<()> {
    if !is_unprivileged() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{verb} a container without root"))
        .with_advice("CRIU needs root of the host"))
}

impl CriuOptions {
    /// Where the log goes.
    pub(super) fn open_work(&self) -> Result<Option<OwnedFd>> {
        self.work.as_deref().map(|work| Ok(images::open_or_make(work)?.0)).transpose()
    }

    /// The options of both directions.
    pub(super) fn message(
        &self,
        spec: &Spec,
        images: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
        log: &str,
    ) -> Message {
        let number = |fd: BorrowedFd<'_>| u64::try_from(fd.as_raw_fd()).unwrap_or(0);
        let annotation = spec.annotations().as_ref().and_then(|all| all.get(CONFIG_ANNOTATION));
        let message = Message::default()
            .number(option::IMAGES_DIRECTORY, number(images))
            .number(option::WORK_DIRECTORY, number(work))
            .number(option::LOG_LEVEL, 4)
            .bytes(option::LOG_FILE, log.as_bytes())
            .switch(option::NOTIFY, true)
            .switch(option::TCP_ESTABLISHED, self.tcp_established)
            .switch(option::EXTERNAL_UNIX_SOCKETS, self.external_unix_sockets)
            .switch(option::SHELL_JOB, self.shell_job)
            .switch(option::FILE_LOCKS, self.file_locks)
            .switch(option::AUTO_DEDUP, self.auto_dedup)
            .switch(option::ORPHAN_TERMINALS, true)
            .switch(option::MANAGE_CGROUPS, true)
            .number(option::MANAGE_CGROUPS_MODE, CGROUPS_IGNORE)
            // Devices of the network are somebody else's affair, as with every runtime.
            .number(option::EMPTY_NAMESPACES, u64::try_from(libc::CLONE_NEWNET).unwrap_or(0));
        match annotation.map_or(CONFIG_FILE, String::as_str) {
            "" => message,
            file => message.bytes(option::CONFIG_FILE, file.as_bytes()),
        }
    }
}

/// What CRIU failed with, and what it wrote last.
pub(super) fn with_log(error: Error, work: BorrowedFd<'_>, log: &str) -> Error {
    match images::log_tail(work, log).as_str() {
        "" => error,
        tail => {
            let kind = error.kind();
            Error::new(kind, format!("{}; {log} ends with: {tail}", error.chain()))
        }
    }
}

/// Refuses configurations of which something cannot be brought back.
pub(super) fn check_restorable(spec: &Spec) -> Result<()> {
    let linux = linux(spec)?;
    let unsupported =
        |text: String| Err(Error::new(ErrorKind::Unsupported, format!("save or restore {text}")));
    for mount in spec.mounts().iter().flatten() {
        let kind = mount.typ().as_deref().unwrap_or("none");
        let known =
            ["none", "bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];
        if !known.contains(&kind) && !is_bind(mount) {
            return unsupported(format!("a mount of type {kind:?}"));
        }
    }
    for namespace in linux.namespaces().iter().flatten().filter(|it| it.path().is_some()) {
        use LinuxNamespaceType as Kind;
        let kind = namespace.typ();
        if matches!(kind, Kind::Mount | Kind::User | Kind::Cgroup | Kind::Time) {
            return unsupported(format!("a container in the {kind} namespace of another"));
        }
    }
    let own = |kind| linux.namespaces().iter().flatten().any(|own| own.typ() == kind);
    if !own(LinuxNamespaceType::Mount) || !own(LinuxNamespaceType::Pid) {
        return unsupported("a container without mount and PID namespace".to_owned());
    }
    let listener = linux.seccomp().as_ref().and_then(|seccomp| seccomp.listener_path().as_ref());
    if listener.is_some() {
        return unsupported("a filter with linux.seccomp.listenerPath".to_owned());
    }
    Ok(())
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    let bind = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(bind)
}

impl Container {
    /// Saves it by CRIU, and removes it unless it is to run on.
    ///
    /// # Errors
    /// `Conflict` when it does not run; `Unsupported` for what cannot be restored; `Denied` when others may write to the
    /// directories; what CRIU failed with. The container runs on then, and the images are removed, but not the log.
    pub fn checkpoint(&self, options: &CheckpointOptions) -> Result<()> {
        let attempt = |error: Error| error.context(format!("checkpoint {}", self.id()));
        check_caller("checkpoint").map_err(attempt)?;
        let lock = self.directory.lock()?;
        let state = self.existing()?;
        let paused = match self.status_of(&state)? {
            Status::Running => false,
            Status::Paused => true,
            status => return Err(self.conflict("checkpoint", status)),
        };
        // CRIU freezes the cgroup itself, and waits without end for processes that are frozen already (cgroup v1).
        if paused {
            self.cgroup()?.thaw()?;
        }
        let dumped = self.dump(&state, options).map_err(attempt);
        let runs_on = options.leave_running || options.pre_dump || dumped.is_err();
        if paused && runs_on {
            self.cgroup()?.freeze()?;
        }
        dumped?;
        drop(lock);
        if options.leave_running || options.pre_dump { Ok(()) } else { self.delete(true) }
    }

    fn dump(&self, state: &State, options: &CheckpointOptions) -> Result<()> {
        let spec = self.configured()?;
        check_restorable(spec)?;
        let (images, was_empty) = images::open_or_make(&options.criu.images)?;
        let own = options.criu.open_work()?;
        let work = own.as_ref().unwrap_or(&images).as_fd();
        if let Some(parent) = &options.parent {
            check_parent(&options.criu.images, parent)?;
        }
        images::make_way(work, &[LOG, STATISTICS])?;
        if options.pre_dump {
            check_tracking(&options.criu.program)?;
        }
        let request = self.dump_request(state, options, images.as_fd(), work)?;
        let launch = Launch::default();
        let criu = Criu::prepare(&options.criu.program, &launch, None)?;
        let asked = criu.ask(&request, &mut |_, _| Ok(()));
        asked.map(drop).map_err(|error| {
            let error = with_log(error, work, LOG);
            if was_empty {
                images::clear(images.as_fd());
            }
            error
        })
    }

    fn dump_request(
        &self,
        state: &State,
        options: &CheckpointOptions,
        images: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
    ) -> Result<Vec<u8>> {
        let spec = self.configured()?;
        let mut message = options
            .criu
            .message(spec, images, work, LOG)
            .number(option::PID, u64::try_from(state.pid).unwrap_or(0))
            .bytes(option::ROOT, state.rootfs.as_os_str().as_bytes())
            .switch(option::LEAVE_RUNNING, options.leave_running || options.pre_dump)
            .switch(option::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight)
            .switch(option::LINK_REMAP, options.link_remap);
        if let Some(parent) = &options.parent {
            message = message.bytes(option::PARENT_IMAGES, parent.as_os_str().as_bytes());
        }
        message =
            message.switch(option::TRACK_MEMORY, options.pre_dump || options.parent.is_some());
        if let Some((address, port)) = &options.page_server {
            message = message.page_server(address, *port);
        }
        let freezer = state.cgroup.directories().find(|(name, _)| name == "freezer");
        let freezer =
            freezer.or_else(|| state.cgroup.directories().find(|(name, _)| name.is_empty()));
        if let Some((_, directory)) = freezer {
            message = message.bytes(option::FREEZE_CGROUP, directory.as_os_str().as_bytes());
        }
        for (kind, name, key) in EXTERNAL_NAMESPACES {
            if let Some(inode) = joined(spec, kind, name, state.pid)? {
                let text = format!("{name}[{inode}]:{key}");
                message = message.bytes(option::EXTERNAL, text.as_bytes());
            }
        }
        if options.pre_dump {
            return Ok(rpc::request(Request::PreDump, &message));
        }
        for point in external_mounts(spec, state.pid)? {
            let point = point.as_os_str().as_bytes();
            message = message.pair(option::EXTERNAL_MOUNT, point, point);
        }
        let standard = standard_descriptors(state.pid)?;
        for name in standard.iter().filter(|name| name.starts_with("file[")) {
            message = message.bytes(option::EXTERNAL, name.as_bytes());
        }
        images::write_descriptors(images, &standard)?;
        Ok(rpc::request(Request::Dump, &message))
    }
}

/// As runc: relative to the images, and there.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        let text = format!("parent path {} is not relative", parent.display());
        return Err(Error::new(ErrorKind::InvalidInput, text)
            .with_advice("it is relative to the image path"));
    }
    images::open(&images.join(parent)).map(drop).map_err(|error| error.context("parent path"))
}

fn check_tracking(program: &Path) -> Result<()> {
    let launch = Launch::default();
    let criu = Criu::prepare(program, &launch, None)?;
    let answer = criu.ask(&rpc::ask_for_memory_tracking(), &mut |_, _| Ok(()))?;
    if answer.tracks_memory {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, "save memory ahead (--pre-dump)")
        .with_advice("this kernel does not track which memory is written (CONFIG_MEM_SOFT_DIRTY)"))
}

/// The inode of a namespace that the configuration joins.
fn joined(spec: &Spec, kind: LinuxNamespaceType, name: &str, pid: i32) -> Result<Option<u64>> {
    let mut namespaces = linux(spec)?.namespaces().iter().flatten();
    if !namespaces.any(|own| own.typ() == kind && own.path().is_some()) {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/ns/{name}");
    let about = std::fs::metadata(&path);
    about
        .map(|about| Some(about.ino()))
        .map_err(|source| Error::system(format!("look at {path}"), source))
}

/// The places of mounts that come from outside: bind mounts, masks of files, nodes of devices, and cgroups where they are
/// bound. Whoever restores the container puts its own there.
fn external_mounts(spec: &Spec, pid: i32) -> Result<Vec<PathBuf>> {
    let linux = linux(spec)?;
    let entries = mount_table::of(pid)?;
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| Error::system(format!("open {path}"), errno))?;
    let mut places = Vec::new();
    let mut bound = Vec::new();
    for mount in spec.mounts().iter().flatten().filter(|mount| is_bind(mount)) {
        bound.push(mounts::target(mount.destination())?);
    }
    for masked in linux.masked_paths().iter().flatten() {
        bound.push(mounts::target(Path::new(masked))?);
    }
    for device in devices::prepare(linux.devices().as_deref().unwrap_or_default())? {
        bound.push(device.host);
    }
    for place in bound {
        let Some(id) = mount_at(root.as_fd(), &place) else { continue };
        let entry = entries.iter().find(|entry| entry.id == id);
        // The mask of a directory is a filesystem of its own, which is saved with the container.
        let own = |kind: &str| matches!(kind, "proc" | "sysfs" | "tmpfs");
        let masked = linux.masked_paths().iter().flatten();
        let outside = |entry: &&mount_table::Entry| {
            let is_mask = masked.clone().any(|path| Path::new(path) == entry.point);
            entry.point != Path::new("/")
                && !(is_mask && own(&entry.kind))
                && absolute(&place).ends_with(entry.point.file_name().unwrap_or_default())
                && !places.contains(&entry.point)
        };
        if let Some(entry) = entry.filter(outside) {
            places.push(entry.point.clone());
        }
    }
    let own_cgroups = linux.namespaces().iter().flatten();
    if !own_cgroups.into_iter().any(|own| own.typ() == LinuxNamespaceType::Cgroup) {
        let cgroups = entries.iter().filter(|entry| entry.kind.starts_with("cgroup"));
        places.extend(cgroups.map(|entry| entry.point.clone()));
    }
    Ok(places)
}

fn absolute(path: &CStr) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

/// The mount that a path in a container is on.
fn mount_at(root: BorrowedFd<'_>, path: &CStr) -> Option<u64> {
    let found = target::find(root, path).ok()?;
    about(&format!("/proc/self/fdinfo/{}", found.as_raw_fd()), "mnt_id")
}

/// A number of fdinfo.
fn about(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// What the standard descriptors of init are: as CRIU calls those that come from outside, and otherwise as the kernel does.
fn standard_descriptors(pid: i32) -> Result<Vec<String>> {
    let inside: Vec<u64> = mount_table::of(pid)?.iter().map(|entry| entry.id).collect();
    let name = |number: u8| {
        let path = format!("/proc/{pid}/fd/{number}");
        let Ok(target) = std::fs::read_link(&path) else { return String::new() };
        let target = target.display().to_string();
        let mount = about(&format!("/proc/{pid}/fdinfo/{number}"), "mnt_id");
        let inode = std::fs::metadata(&path).map(|about| about.ino());
        match (mount, inode) {
            (Some(mount), Ok(inode)) if target.starts_with('/') && !inside.contains(&mount) => {
                format!("file[{mount:x}:{inode:x}]")
            }
            _ => target,
        }
    };
    Ok([0, 1, 2].map(name).to_vec())
}
