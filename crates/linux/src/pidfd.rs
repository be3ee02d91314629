//! Processes by descriptor: a pidfd cannot come to mean another process, a number can.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::{Error, ErrorKind, Result};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The shell's single number: the code, or 128 plus the signal.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Opens a process by number. Only safe from reuse while the caller is its parent and has not reaped it, or checks
/// its start time afterwards.
///
/// # Errors
/// `NotFound` when there is none.
pub fn open(pid: i32) -> Result<OwnedFd> {
    let attempt = || format!("open process {pid}");
    // Checked first: rustix asserts that a number is not negative.
    let number = (pid > 0)
        .then(|| Pid::from_raw(pid))
        .flatten()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, attempt()))?;
    rustix::process::pidfd_open(number, PidfdFlags::empty())
        .map_err(|errno| Error::system(attempt(), errno))
}

/// Sends a signal by number, real-time signals included; 0 only checks that the process is there.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM`, or `EINVAL` for a number that is no signal.
#[expect(unsafe_code, reason = "rustix's Signal cannot hold real-time signals safely")]
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is borrowed for the whole call; the siginfo pointer may be null (pidfd_send_signal(2)).
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if answer == 0 { Ok(()) } else { Err(crate::fd::last_errno()) }
}

/// Waits until the process has ended, at most `timeout` (`None`: for ever); answers whether it has. Works for any
/// process, child or not; a zombie counts as ended.
///
/// # Errors
/// The system's.
pub fn wait_end(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for a process", errno)),
        }
    }
}

/// Waits for a child of this process to end and reaps it.
///
/// # Errors
/// `ECHILD` (kind `Io`) when it is not a child or was reaped already.
pub fn wait_child(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for a child process", errno)),
        }
    }
}

/// Reaps a child of this process if it has ended.
///
/// # Errors
/// As [`wait_child`].
pub fn try_wait_child(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)
        .map(|status| status.as_ref().map(exit_of))
        .map_err(|errno| Error::system("look at a child process", errno))
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(255),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped through its pidfd")]
    fn a_killed_child_is_seen_and_reaped() {
        let child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let pidfd = open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!wait_end(pidfd.as_fd(), Some(Duration::ZERO)).unwrap());
        assert_eq!(try_wait_child(pidfd.as_fd()).unwrap(), None);
        send_signal(pidfd.as_fd(), 9).unwrap();
        assert!(wait_end(pidfd.as_fd(), None).unwrap());
        assert_eq!(wait_child(pidfd.as_fd()).unwrap(), Exit::Signal(9));
        assert_eq!(send_signal(pidfd.as_fd(), 0), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(open(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open(-5).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
