//! Making processes: `clone3`, what a child does before `exec`, and keeping our own executable out of reach.
//!
//! A child that comes from a threaded program holds copies of locks whose owners do not exist in it. So between
//! [`clone3`] and [`exec`] it must not allocate and not lock: everything here that answers [`rustix::io::Result`]
//! keeps to that.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Flags of clone3(2) that do not fit libc's `c_int` constants, or are named so often that a short name helps.
pub mod flags {
    /// Reset caught signals to their defaults (Linux 5.5).
    pub const CLEAR_SIGHAND: u64 = 1 << 32;
    /// Start in the cgroup (v2) of `CloneOptions::cgroup` (Linux 5.7).
    pub const INTO_CGROUP: u64 = 1 << 33;
    /// Become a sibling: the new process's parent is the caller's parent.
    pub const PARENT: u64 = 0x8000;
    /// New mount namespace.
    pub const NEW_MOUNT: u64 = 0x0002_0000;
    /// New cgroup namespace.
    pub const NEW_CGROUP: u64 = 0x0200_0000;
    /// New UTS namespace.
    pub const NEW_UTS: u64 = 0x0400_0000;
    /// New IPC namespace.
    pub const NEW_IPC: u64 = 0x0800_0000;
    /// New user namespace.
    pub const NEW_USER: u64 = 0x1000_0000;
    /// New PID namespace.
    pub const NEW_PID: u64 = 0x2000_0000;
    /// New network namespace.
    pub const NEW_NETWORK: u64 = 0x4000_0000;
    /// New time namespace (Linux 5.6).
    pub const NEW_TIME: u64 = 0x80;
}

/// How the new process is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions<'a> {
    /// Of [`flags`]; `CLONE_PIDFD` is always added.
    pub flags: u64,
    /// The cgroup v2 directory to be born in; adds [`flags::INTO_CGROUP`].
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A process made by [`clone3`], seen from the process that made it.
#[derive(Debug)]
pub struct Cloned {
    /// Its number in the caller's PID namespace.
    pub pid: i32,
    /// Its descriptor, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Makes a process that runs `child` and then exits with the code it answers. This is the one place where Brig
/// makes processes that do not exec at once.
///
/// # Safety
/// `child` runs in a copy of a possibly threaded process: it must not allocate, free, lock, panic or use anything
/// that other threads may have held, until it execs or exits. (Values it drops must not free memory either.)
///
/// # Errors
/// As clone3(2). Kernels before 5.7 answer `EINVAL` or `E2BIG` for a cgroup.
#[expect(unsafe_code, reason = "clone3 is in neither rustix nor nix")]
pub unsafe fn clone3(
    options: CloneOptions<'_>,
    child: impl FnOnce() -> i32,
) -> rustix::io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is the documented "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = options.flags | CLONE_PIDFD;
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    // A sibling inherits the exit signal of the caller; the kernel refuses another one.
    if options.flags & flags::PARENT == 0 {
        arguments.exit_signal = SIGCHLD;
    }
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= flags::INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: neither CLONE_VM nor a stack is asked for, so the child has its own copy of this address space and
    // returns here on its own copy of this stack; pidfd outlives the call. The caller promises what the child does.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match pid {
        -1 => Err(crate::fd::last_errno()),
        0 => exit(child()),
        pid => {
            // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that nobody owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned { pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
        }
    }
}

const CLONE_PIDFD: u64 = 0x1000;
const SIGCHLD: u64 = 17;
/// `_NSIG` of Linux on x86-64 and arm64.
const SIGNAL_MAX: i32 = 64;

/// Ends this process at once: no destructors, no exit handlers, no flushing. Child-safe.
#[expect(unsafe_code, reason = "std's exit runs handlers that a cloned child must not run")]
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of the program.
    unsafe { libc::_exit(code) }
}

/// A null-terminated array of strings as execve(2) wants it, made beforehand.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const c_char>,
    strings: Vec<CString>,
}

impl Strings {
    /// Takes the strings.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        let pointers = pointers.chain([std::ptr::null()]).collect();
        Self { pointers, strings }
    }

    /// The strings again.
    #[must_use]
    pub fn as_slice(&self) -> &[CString] {
        &self.strings
    }
}

#[expect(unsafe_code, reason = "the pointers point into strings owned by the same value")]
// SAFETY: the pointers are never written through, and what they point to is owned, immutable and moves with the value
// (a CString's bytes are on the heap).
unsafe impl Send for Strings {}
#[expect(unsafe_code, reason = "as for Send")]
// SAFETY: as for Send; shared use only reads.
unsafe impl Sync for Strings {}

/// Replaces this process's program; answers only on failure. Child-safe.
#[expect(unsafe_code, reason = "execve is in neither rustix nor a child-safe std function")]
pub fn exec(path: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: all three are valid for the call: the path is a CStr, and Strings keeps its arrays null-terminated
    // and its strings alive.
    unsafe {
        libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr())
    };
    crate::fd::last_errno()
}

/// Sets every signal to its default action and unblocks all, so that what an embedder ignores or blocks does not
/// reach a container. Child-safe.
#[expect(unsafe_code, reason = "signal dispositions are process state that rustix leaves to libc")]
pub fn reset_signals() {
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: SIG_DFL runs no code of ours; numbers that may not be changed (9, 19, 32, 33) fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let empty: u64 = 0;
    // SAFETY: the kernel reads eight bytes of a mask that outlives the call, and is not asked for the old mask.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const empty,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Moves this thread into new namespaces (and unshares filesystem attributes with `libc::CLONE_FS`). Child-safe.
///
/// # Errors
/// As unshare(2).
#[expect(unsafe_code, reason = "unshare(CLONE_FILES) would be unsafe; it is refused here")]
pub fn unshare(new: rustix::thread::UnshareFlags) -> rustix::io::Result<()> {
    if new.contains(rustix::thread::UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: only an unshared descriptor table could invalidate other values, and that was refused above.
    unsafe { rustix::thread::unshare_unsafe(new) }
}

mod helper;
mod seal;
pub use helper::{HelperStack, helper_thread};
pub use seal::seal_executable;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::pidfd::{Exit, wait_child};

    #[test]
    #[expect(unsafe_code, reason = "tests the unsafe function")]
    fn a_cloned_child_runs_and_exits() {
        // SAFETY: the child only returns a number.
        let child = unsafe { clone3(CloneOptions::default(), || 7) }.unwrap();
        assert_eq!(wait_child(child.pidfd.as_fd()).unwrap(), Exit::Code(7));
    }

    #[test]
    #[expect(unsafe_code, reason = "tests the unsafe function")]
    fn exec_passes_arguments_and_environment() {
        let string = |text: &str| CString::new(text).unwrap();
        let arguments = Strings::new(vec![
            string("sh"),
            string("-c"),
            string("test \"$A\" = b && test $# = 1"),
            string("sh"),
            string("one"),
        ]);
        let environment = Strings::new(vec![string("A=b")]);
        let path = string("/bin/sh");
        // SAFETY: the child execs what was prepared before it existed.
        let child = unsafe {
            clone3(CloneOptions::default(), || {
                reset_signals();
                exec(&path, &arguments, &environment).raw_os_error()
            })
        };
        assert_eq!(wait_child(child.unwrap().pidfd.as_fd()).unwrap(), Exit::Code(0));
    }
}
