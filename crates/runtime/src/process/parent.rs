//! The caller's side of making a process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use brig_linux::process::{CloneOptions, Cloned, clone3, flags};
use oci_spec::runtime::LinuxIdMapping;

use super::adjust::{self, AdjustPlan};
use super::channel::{ChildSide, ParentSide, pair};
use super::exec::{self, ExecPlan, OomScoreAdjustment};
use super::id_maps::IdMaps;
use super::init;
use super::message::{At, Failure, Message, Step};
use super::plan::InitPlan;
use crate::error::{Error, ErrorKind, Result};
use crate::protection::leaked_descriptors;

/// A process that waits to be released.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: ParentSide,
}

/// What the intermediate or the child reported instead of working.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// A step of the child.
    Step(Failure),
    /// Something on the caller's side.
    Own(Error),
}

impl From<Error> for SpawnError {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// Makes init.
#[expect(unsafe_code, reason = "the one place where init is made")]
pub(crate) fn spawn_init(
    plan: &InitPlan,
    cgroup: Option<BorrowedFd<'_>>,
) -> std::result::Result<Spawned, SpawnError> {
    let (parent, child) = pair()?;
    let options = CloneOptions { flags: plan.clone_flags | flags::CLEAR_SIGHAND, cgroup };
    let keep = Keep::new(plan.process.preserve_fds, {
        let mut fds = plan.descriptors();
        fds.push(child.as_fd().as_raw_fd());
        fds.extend(cgroup.as_ref().map(AsRawFd::as_raw_fd));
        fds
    });
    if !plan.intermediate {
        let body = || {
            // Before it reports anything: the end of file of sockets depends on it.
            match keep.apply() {
                Ok(()) => init::run(plan, &child),
                Err(_) => 1,
            }
        };
        // SAFETY: init::run works on the prepared plan alone and neither allocates nor locks.
        let cloned = unsafe { clone3(options, body) };
        drop(child);
        let cloned = cloned.at(Step::Clone).map_err(SpawnError::Step)?;
        return Ok(Spawned { pid: cloned.pid, pidfd: cloned.pidfd, channel: parent });
    }
    let sibling = CloneOptions { flags: plan.clone_flags | flags::PARENT, cgroup };
    through_intermediate(
        parent,
        child,
        &keep,
        || Ok(()),
        || init::enter_all(&plan.joins),
        |child| {
            // SAFETY: as above; the intermediate that runs this is itself a fresh child.
            unsafe { clone3(sibling, || init::run(plan, child)) }
        },
    )
}

/// Makes a further process of a container.
#[expect(unsafe_code, reason = "the one place where further processes are made")]
pub(crate) fn spawn_exec(
    plan: &ExecPlan,
    cgroup: Option<BorrowedFd<'_>>,
) -> std::result::Result<Spawned, SpawnError> {
    let (parent, child) = pair()?;
    let sibling = CloneOptions { flags: flags::PARENT, cgroup };
    let keep = Keep::new(plan.process.preserve_fds, {
        let mut fds = plan.descriptors();
        fds.push(child.as_fd().as_raw_fd());
        fds.extend(cgroup.as_ref().map(AsRawFd::as_raw_fd));
        fds
    });
    through_intermediate(
        parent,
        child,
        &keep,
        || plan.adjust(),
        || plan.enter(),
        |child| {
            // SAFETY: exec::run works on the prepared plan alone and neither allocates nor locks.
            unsafe { clone3(sibling, || exec::run(plan, child)) }
        },
    )
}

#[expect(unsafe_code, reason = "the intermediate is a clone like init")]
fn through_intermediate(
    parent: ParentSide,
    child: ChildSide,
    keep: &Keep,
    before: impl Fn() -> std::result::Result<(), Failure>,
    enter: impl Fn() -> std::result::Result<(), Failure>,
    make: impl Fn(&ChildSide) -> rustix::io::Result<Cloned>,
) -> std::result::Result<Spawned, SpawnError> {
    let body = || {
        let not_dumpable = rustix::process::DumpableBehavior::NotDumpable;
        let made = keep
            .apply()
            .at(Step::Protect)
            .and_then(|()| before())
            .and_then(|()| rustix::process::set_dumpable_behavior(not_dumpable).at(Step::Protect))
            .and_then(|()| enter())
            .and_then(|()| make(&child).at(Step::Clone));
        match made {
            Ok(cloned) => {
                child.send(&Message::Made(cloned.pid), &[cloned.pidfd.as_fd()]);
                0
            }
            Err(failure) => {
                child.send(&Message::Failed(failure), &[]);
                1
            }
        }
    };
    let options = CloneOptions { flags: flags::CLEAR_SIGHAND, cgroup: None };
    // SAFETY: the intermediate makes a handful of system calls on prepared values and exits.
    let intermediate =
        unsafe { clone3(options, body) }.at(Step::Clone).map_err(SpawnError::Step)?;
    drop(child);
    // It ends by itself once it has reported. An end of file would not tell that it was killed: the process that it made
    // has the socket too, and waits for us. An embedder that reaps every child may have been faster.
    let _ = brig_linux::pidfd::wait_child(intermediate.pidfd.as_fd());
    match parent.receive_sent()? {
        Some((Message::Made(pid), fds)) => {
            let pidfd = fds.into_iter().next().ok_or_else(silent)?;
            Ok(Spawned { pid, pidfd, channel: parent })
        }
        Some((Message::Failed(failure), _)) => Err(SpawnError::Step(failure)),
        _ => Err(SpawnError::Own(silent())),
    }
}

/// The error for a child that ended without a word: killed, mostly by the memory limit of its cgroup.
pub(crate) fn silent() -> Error {
    Error::new(ErrorKind::Exhausted, "the container's first process was killed while being set up")
        .with_advice("look for a memory limit that is too small")
}

/// What a child may keep of the caller's descriptors.
pub(crate) struct Keep {
    first: u32,
    sorted: Vec<RawFd>,
}

impl Keep {
    pub(crate) fn new(preserve: u32, mut fds: Vec<RawFd>) -> Self {
        fds.extend(leaked_descriptors());
        fds.sort_unstable();
        Self { first: preserve.saturating_add(3), sorted: fds }
    }

    /// Closes everything else. Child-safe.
    #[expect(unsafe_code, reason = "the child closes what the caller's values own")]
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        // SAFETY: this runs in a cloned child only, which uses nothing but its plan, whose descriptors are kept, and
        // exits or execs without dropping any value.
        unsafe { brig_linux::fd::close_all_but(self.first, &self.sorted) }
    }
}

/// A user namespace with these maps that no process lives in, for id-mapped mounts.
#[expect(unsafe_code, reason = "a user namespace is made by a process that is born in it")]
pub(crate) fn user_namespace(
    users: &[LinuxIdMapping],
    groups: &[LinuxIdMapping],
) -> Result<OwnedFd> {
    let (parent, child) = pair()?;
    let options = CloneOptions { flags: flags::NEW_USER | flags::CLEAR_SIGHAND, cgroup: None };
    let keep = Keep::new(0, vec![child.as_fd().as_raw_fd()]);
    let body = || {
        if keep.apply().is_err() {
            return 1;
        }
        // Either answer means that nobody needs this process any more.
        let _ = child.wait();
        0
    };
    // SAFETY: the child waits for one byte and exits.
    let cloned = unsafe { clone3(options, body) }
        .map_err(|errno| Error::system("make a user namespace", errno))?;
    drop(child);
    let maps = IdMaps { users, groups, unprivileged: false, programs: None };
    let namespace = maps.write(cloned.pid).and_then(|()| {
        std::fs::File::open(format!("/proc/{}/ns/user", cloned.pid))
            .map_err(|source| Error::system("open the new user namespace", source))
    });
    let released = parent.go();
    let _ = brig_linux::pidfd::wait_child(cloned.pidfd.as_fd());
    released?;
    namespace.map(OwnedFd::from)
}

/// Mounts into or unmounts from a container.
///
/// # Errors
/// The first step that failed, by its name.
#[expect(unsafe_code, reason = "a namespace is entered by a process of its own")]
pub(crate) fn adjust_mounts(plan: &AdjustPlan) -> Result<()> {
    let (parent, child) = pair()?;
    let mut fds = plan.descriptors();
    fds.push(child.as_fd().as_raw_fd());
    let keep = Keep::new(0, fds);
    let body = || match keep.apply() {
        Ok(()) => adjust::run(plan, &child),
        Err(_) => 1,
    };
    let options = CloneOptions { flags: flags::CLEAR_SIGHAND, cgroup: None };
    // SAFETY: adjust::run works on the prepared plan alone and neither allocates nor locks.
    let cloned = unsafe { clone3(options, body) }
        .map_err(|errno| Error::system("make a process to enter the container", errno))?;
    drop(child);
    let heard = expect_ready(&parent, plan, || Ok(()));
    // An embedder that reaps every child may have been faster.
    let _ = brig_linux::pidfd::wait_child(cloned.pidfd.as_fd());
    heard.map(drop)
}

/// Sets `lo` up in a network namespace.
///
/// # Errors
/// The system's.
#[cfg(feature = "checkpoint")]
#[expect(unsafe_code, reason = "a namespace is entered by a process of its own")]
pub(crate) fn set_loopback_up(namespace: BorrowedFd<'_>) -> Result<()> {
    let body = || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        let done = rustix::thread::move_into_link_name_space(namespace, Some(kind))
            .and_then(|()| init::loopback_up());
        i32::from(done.is_err())
    };
    let options = CloneOptions { flags: flags::CLEAR_SIGHAND, cgroup: None };
    // SAFETY: the child makes two system calls and exits.
    let cloned = unsafe { clone3(options, body) }
        .map_err(|errno| Error::system("make a process to enter a network namespace", errno))?;
    match brig_linux::pidfd::wait_child(cloned.pidfd.as_fd()) {
        Ok(exit) if exit.status() != 0 => {
            Err(Error::new(ErrorKind::Io, "set the loopback interface up"))
        }
        // An embedder that reaps every child may have been faster.
        _ => Ok(()),
    }
}

/// Sets a process's oom_score_adj.
pub(crate) fn set_oom_score_adjustment(pid: i32, value: i32) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, value.to_string()) {
        Err(source)
            if source.kind() == std::io::ErrorKind::PermissionDenied
                && OomScoreAdjustment::is_wish(value) =>
        {
            Ok(())
        }
        other => {
            other.map_err(|source| Error::system(format!("set oom_score_adj to {value}"), source))
        }
    }
}

/// Knows the names of what a plan works on.
pub(crate) trait Names {
    /// The object of a step on the item `index`.
    fn name(&self, step: Step, index: usize) -> String;
}

/// Says a child's failure in words.
pub(crate) fn explain(failure: &Failure, names: &dyn Names) -> Error {
    let index = usize::try_from(failure.index).unwrap_or(usize::MAX);
    let errno = failure.errno;
    let name = names.name(failure.step, index);
    let system = std::io::Error::from(errno);
    let kind = brig_linux::ErrorKind::of(&system).into();
    if matches!(failure.step, Step::FindProgram | Step::Exec) {
        return program_error(failure, &name);
    }
    let code = format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()));
    let detail = String::from_utf8_lossy(failure.detail());
    let text = match (detail.is_empty(), advice(failure)) {
        (false, _) => format!("{name}: {code} ({detail})"),
        (true, Some(advice)) => format!("{name}: {code} ({advice})"),
        (true, None) => format!("{name}: {code} ({})", plain(&system)),
    };
    Error::new(kind, text)
}

/// The system's words without Rust's number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

/// The words that engines look for to tell "no such command" (127) and "cannot run it" (126) from other failures.
fn program_error(failure: &Failure, name: &str) -> Error {
    use rustix::io::Errno;
    let errno = failure.errno;
    let system = std::io::Error::from(errno);
    let bare = !name.contains('/');
    if errno == Errno::NOENT && failure.step == Step::FindProgram && bare {
        let text = format!("exec: {name:?}: executable file not found in $PATH");
        return Error::new(ErrorKind::NotFound, text);
    }
    let what = match failure.step {
        Step::FindProgram if errno == Errno::NOENT => format!("stat {name}: "),
        _ => String::new(),
    };
    let text = format!("exec: {name:?}: {what}{}", plain(&system));
    Error::new(brig_linux::ErrorKind::of(&system).into(), text)
}

fn advice(failure: &Failure) -> Option<&'static str> {
    use rustix::io::Errno;
    Some(match (failure.step, failure.errno) {
        (Step::Mount, Errno::PERM) => {
            "in a user namespace, proc needs its own pid namespace, sysfs its own network namespace"
        }
        (Step::Source, Errno::INVAL) => "other mounts lie below it: use rbind",
        (Step::Source, Errno::PERM) => {
            "a user namespace cannot take ro, nosuid, nodev or noexec from a mount of the host, nor change its atime"
        }
        (Step::User | Step::Groups, Errno::INVAL) => {
            "the user namespace does not map it: see linux.uidMappings and linux.gidMappings"
        }
        (Step::MaskSource, Errno::NODEV) => "/dev/null is not the null device (char 1:3)",
        (Step::ConsoleDevice, Errno::LOOP) => "/dev or /dev/console is a symbolic link",
        (Step::Terminal, Errno::NOENT) => "a terminal needs a devpts mount at /dev/pts",
        (Step::WorkingDirectory, Errno::LOOP) => "the working directory leads through a descriptor",
        (Step::Capabilities, Errno::PERM) => {
            "the caller does not have one of these capabilities itself"
        }
        (Step::Hook, Errno::TIMEDOUT) => "it was killed at its timeout",
        (Step::Clone, Errno::NOSPC | Errno::USERS) => {
            "a limit in /proc/sys/user or the depth of namespaces is reached"
        }
        (Step::PivotRoot, Errno::INVAL) => "on an initial ramdisk use --no-pivot",
        _ => return None,
    })
}

/// The wait-and-release part that init and exec share: hears until the child is ready.
pub(crate) fn expect_ready(
    channel: &ParentSide,
    names: &dyn Names,
    mut mounted: impl FnMut() -> Result<()>,
) -> Result<Option<OwnedFd>> {
    loop {
        match channel.receive()? {
            Some((Message::Ready, fds)) => return Ok(fds.into_iter().next()),
            Some((Message::Mounted, _)) => {
                mounted()?;
                channel.go()?;
            }
            Some((Message::Failed(failure), _)) => return Err(explain(&failure, names)),
            Some((Message::Made(_), _)) | None => return Err(silent()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process that it made waits for a caller that waits for the intermediate, unless the caller looks who is left.
    #[test]
    #[expect(unsafe_code, reason = "makes what through_intermediate makes")]
    fn a_killed_intermediate_keeps_nobody_waiting() {
        let (parent, child) = pair().unwrap();
        let keep = Keep::new(0, vec![child.as_fd().as_raw_fd()]);
        let sibling = CloneOptions { flags: flags::PARENT, cgroup: None };
        let make = |child: &ChildSide| {
            // SAFETY: the child waits for one byte and exits.
            let cloned = unsafe { clone3(sibling, || i32::from(child.wait().is_ok())) };
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            cloned
        };
        let spawned = through_intermediate(parent, child, &keep, || Ok(()), || Ok(()), make);
        assert!(matches!(spawned, Err(SpawnError::Own(_))), "{spawned:?}");
    }
}
