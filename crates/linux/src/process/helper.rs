//! A second thread beside a freshly cloned child, for work that the child itself may no longer do.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// How much memory the thread has for its calls, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// The memory of a [`helper_thread`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct HelperStack([u8; STACK_SIZE]);

impl HelperStack {
    /// Fresh memory.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; STACK_SIZE])
    }
}

impl Default for HelperStack {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a thread of this process that runs `work` with `argument` and ends. Unlike a process it leaves nothing for anyone
/// to wait for, and an exec of the other thread ends it. It has the caller's descriptors and memory; a seccomp filter that
/// the caller installs afterwards does not bind it. The kernel sets `running` to 0 once it has ended. Child-safe.
///
/// # Safety
/// `work` shares thread-local storage with the caller, so neither may use any while both run (`errno` included: system
/// calls only through rustix). It must not allocate, lock or panic. `stack`, `running` and what `argument` points to stay
/// where they are until `running` is 0, or the process has exec'd or exited.
///
/// # Errors
/// As clone(2).
#[expect(
    unsafe_code,
    reason = "a thread without libc's bookkeeping, which a cloned child may not touch"
)]
pub unsafe fn helper_thread(
    stack: &mut HelperStack,
    running: &AtomicI32,
    work: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> rustix::io::Result<()> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_CHILD_CLEARTID;
    running.store(1, Ordering::Release);
    let top = stack.0.as_mut_ptr_range().end;
    let unused = std::ptr::null_mut::<c_void>();
    // SAFETY: the stack's end is aligned by its type and grows into memory that the caller keeps; libc's wrapper runs
    // `work` there and ends the thread alone; the kernel then writes the four bytes of `running`. The caller promises what
    // `work` does.
    let answer =
        unsafe { libc::clone(work, top.cast(), flags, argument, unused, unused, running.as_ptr()) };
    if answer >= 0 { Ok(()) } else { Err(crate::fd::last_errno()) }
}
