//! Forking a process of one thread, for supervisors that do slow work in a child and keep none of its memory.
//!
//! fork(2) copies the calling thread only; in a process with several, the child would hold locks whose owners do not
//! exist. [`fork`] therefore refuses unless the kernel counts one thread, and then the child may do anything.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;

use crate::{Error, ErrorKind, Result};

/// First descriptor that a child does not inherit unless told: standard streams stay.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Exit code of a child that panicked, as of a Rust program.
const PANICKED: i32 = 101;

/// Forks; the child holds the standard streams and `keep` but no other descriptor, runs `child` with `keep` and exits
/// with the code it answers, without running destructors of what it was copied from.
///
/// `keep` moves into the child: the parent's copies are closed when this returns, whether it succeeds or not.
///
/// # Errors
/// `Conflict` when this process has more than one thread, and fork(2)'s own.
pub fn fork(keep: Vec<OwnedFd>, child: impl FnOnce(Vec<OwnedFd>) -> i32) -> Result<Pid> {
    if !has_one_thread()? {
        return Err(Error::new(ErrorKind::Conflict, "fork a process that has several threads"));
    }
    #[expect(unsafe_code, reason = "fork is in rustix and nix only as an unsafe function")]
    // SAFETY: the process has one thread, as counted above by the kernel, and only this thread could start another;
    // so no lock is held by a thread that the child lacks, and the child may allocate and lock.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::system("fork", std::io::Error::last_os_error())),
        0 => {
            // The closure's frames end here: unwinding further would run the parent's code a second time.
            let code = catch_unwind(AssertUnwindSafe(|| {
                close_all_but(&keep);
                child(keep)
            }));
            exit(code.unwrap_or(PANICKED))
        }
        pid => Pid::from_raw(pid)
            .ok_or_else(|| Error::new(ErrorKind::Io, "fork answered an impossible process id")),
    }
}

/// Whether this thread is the only one: the kernel counts threads as links of the directory that lists them.
fn has_one_thread() -> Result<bool> {
    let stat = rustix::fs::stat("/proc/self/task")
        .map_err(|errno| Error::system("count threads in /proc/self/task", errno))?;
    Ok(stat.st_nlink == 3)
}

/// Closes what the child must not hold open: somebody waits for the end of each of those files.
fn close_all_but(keep: &[OwnedFd]) {
    let mut numbers: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let mut first = FIRST_DESCRIPTOR;
    for number in numbers {
        if number > first {
            close_range(first, number - 1);
        }
        first = first.max(number + 1);
    }
    close_range(first, RawFd::MAX);
}

#[expect(unsafe_code, reason = "close_range is in neither rustix nor nix")]
fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: called only in a forked child, whose copies of the parent's values that own these descriptors are never
    // used or dropped again: the child runs one closure, which owns what was kept, and exits without destructors.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

#[expect(unsafe_code, reason = "std's exit would run handlers and flush buffers of the parent")]
fn exit(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        // The test harness runs this in a thread of its own.
        let error = fork(Vec::new(), |_| 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
