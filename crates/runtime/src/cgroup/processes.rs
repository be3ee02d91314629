//! The processes of a cgroup: listing, signalling, killing, and waiting until they are gone.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::directory::{Directory, keyed_number};
use super::failure::{self, Result, errno};
use super::{Cgroup, FreezerState};

/// How deep cgroups inside a container are followed. The kernel's own default is unlimited; a container that nests deeper
/// is killed by `cgroup.kill`, which does not walk.
const DEPTH_LIMIT: usize = 64;

/// Sweeps over a group that forks while it is being signalled and cannot be frozen.
const SWEEP_LIMIT: usize = 100;

/// Every process in the directory and below. Processes outside the caller's PID namespace read as 0 and are left out.
pub(super) fn of(directory: &Directory) -> Result<Vec<Pid>> {
    let mut found = BTreeSet::new();
    collect(directory, DEPTH_LIMIT, &mut found)?;
    Ok(found.into_iter().filter_map(Pid::from_raw).collect())
}

fn collect(directory: &Directory, depth: usize, found: &mut BTreeSet<i32>) -> Result<()> {
    let text = match directory.read("cgroup.procs") {
        Ok(text) => text,
        // Removed meanwhile: no process is in it.
        Err(error) if errno(&error) == Some(libc::ENODEV) => return Ok(()),
        // A threaded cgroup of v2; its processes are listed by the domain above.
        Err(error) if errno(&error) == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    if depth > 0 {
        for name in directory.children()? {
            match directory.child(&name) {
                Ok(child) => collect(&child, depth - 1, found)?,
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl Cgroup {
    /// Kills every process with SIGKILL, frozen ones included: `cgroup.kill` where the kernel has it (5.14), else by
    /// freezing, signalling each through a pidfd, and thawing. Returns when all are signalled, not when they are gone;
    /// see [`Cgroup::wait_empty`].
    ///
    /// # Errors
    /// The group cannot be listed, or a process cannot be signalled.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(unified) = &self.unified
            && unified.directory.write_if_present("cgroup.kill", "1")?
        {
            // A v1 freezer, set by someone else, would hold the dying processes.
            return self.thaw_legacy();
        }
        self.signal_all(Signal::KILL)
    }

    /// Sends a signal to every process, also to ones forked meanwhile. The group is frozen while that happens; a group
    /// that was frozen before stays so, unless the signal is SIGKILL.
    ///
    /// # Errors
    /// The group cannot be listed, or a process cannot be signalled.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        let was_frozen = matches!(self.freezer_state()?, FreezerState::Frozen);
        // Without a freezer the sweeps below still reach every process that does not fork faster than we read.
        let frozen = was_frozen || self.freeze().is_ok();
        let swept = self.sweep(signal, if frozen { 1 } else { SWEEP_LIMIT });
        if frozen && (!was_frozen || signal == Signal::KILL) {
            self.thaw()?;
        }
        swept
    }

    /// Waits until no process is in the cgroup or below it, by events. Answers whether that happened in time.
    ///
    /// # Errors
    /// The group cannot be read or polled.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        match (&self.unified, self.membership()) {
            (Some(unified), _) => wait_event(&unified.directory, "populated", 0, deadline),
            (None, Some(directory)) => wait_processes(directory, deadline),
            (None, None) => Ok(true),
        }
    }

    fn sweep(&self, signal: Signal, sweeps: usize) -> Result<()> {
        let mut signalled = BTreeSet::new();
        for _ in 0..sweeps {
            let mut new = false;
            for pid in self.procs()? {
                if signalled.insert(pid.as_raw_nonzero()) {
                    new = true;
                    self.signal(pid, signal)?;
                }
            }
            if !new {
                break;
            }
        }
        Ok(())
    }

    fn signal(&self, pid: Pid, signal: Signal) -> Result<()> {
        let sent = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process: OwnedFd| pidfd_send_signal(&process, signal));
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(source) => {
                let path = self.membership().map(Directory::path).unwrap_or_else(|| "/".as_ref());
                Err(failure::file("signal the processes of", path, source))
            }
        }
    }
}

/// Waits until a key of `cgroup.events` has a value; the kernel reports changes as POLLPRI (cgroup-v2.rst).
pub(super) fn wait_event(
    directory: &Directory,
    key: &str,
    value: u64,
    deadline: Instant,
) -> Result<bool> {
    let file = match directory.open("cgroup.events", OFlags::RDONLY) {
        Ok(file) => file,
        // Removed: then nothing is in it either.
        Err(error) if errno(&error) == Some(libc::ENOENT) => return Ok(true),
        Err(error) => return Err(error),
    };
    let failed =
        |source| failure::file("wait for", &directory.path().join("cgroup.events"), source);
    loop {
        let mut text = [0_u8; 256];
        let read = match rustix::io::pread(&file, &mut text, 0) {
            Ok(count) => String::from_utf8_lossy(&text[..count]).into_owned(),
            Err(Errno::NODEV) => return Ok(true),
            Err(source) => return Err(failed(source)),
        };
        if keyed_number(&read, key) == Some(value) {
            return Ok(true);
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(false) };
        wait(&mut [PollFd::new(&file, PollFlags::PRI)], left).map_err(failed)?;
    }
}

/// Without cgroup2, the processes themselves are the events: a pidfd becomes readable when its process exits.
fn wait_processes(directory: &Directory, deadline: Instant) -> Result<bool> {
    loop {
        let pids = of(directory)?;
        let Some(last) = pids.last() else { return Ok(true) };
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(false) };
        let failed = |source| failure::file("wait for the processes of", directory.path(), source);
        match pidfd_open(*last, PidfdFlags::empty()) {
            Ok(process) => {
                wait(&mut [PollFd::new(&process, PollFlags::IN)], left).map_err(failed)?;
            }
            Err(Errno::SRCH) => {}
            Err(source) => return Err(failed(source)),
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], left: Duration) -> rustix::io::Result<()> {
    let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(source) => Err(source),
    }
}
