//! Installing a seccomp filter on the calling thread with seccomp(2).
//!
//! The call neither allocates nor takes locks, so it may run between clone3 and execve. It does not set
//! `no_new_privs`: without it the caller needs `CAP_SYS_ADMIN` in its user namespace.
#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper in rustix, nix or libc")]

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Most instructions that the kernel takes in one filter (`BPF_MAXINSNS`).
pub const INSTRUCTION_LIMIT: usize = 4096;

/// `SECCOMP_FILTER_FLAG_TSYNC`: all threads of the process.
pub const FLAG_TSYNC: u32 = 1 << 0;
/// `SECCOMP_FILTER_FLAG_LOG`: log every action but allow (kernel 4.14).
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: leave speculative store bypass alone (4.17).
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a notification descriptor (5.0).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`: lets TSYNC go with a listener (5.7).
pub const FLAG_TSYNC_ESRCH: u32 = 1 << 4;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: only fatal signals interrupt a call that a supervisor has received (5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const SET_MODE_FILTER: libc::c_uint = 1;

/// One classic BPF instruction, as `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    /// Class, size, mode and operation.
    pub code: u16,
    /// Distance when the condition holds.
    pub jump_true: u8,
    /// Distance when it does not.
    pub jump_false: u8,
    /// Constant operand.
    pub constant: u32,
}

#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const Instruction,
}

/// Installs a filter. With [`FLAG_NEW_LISTENER`] the result is the listener. Child-safe.
///
/// # Errors
/// EACCES without `no_new_privs` or `CAP_SYS_ADMIN`; EINVAL for a bad program or an unknown flag; E2BIG for too many
/// instructions; ESRCH when a thread could not be synchronised; EBUSY when a listener is there already.
pub fn install(filter: &[Instruction], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    if filter.len() > INSTRUCTION_LIMIT {
        return Err(Errno::TOOBIG);
    }
    let length = libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::TOOBIG)?;
    let program = Program { length, instructions: filter.as_ptr() };
    // SAFETY: `program` and the `length` instructions it points to are borrowed for the whole call, the kernel copies them
    // and writes nothing; `Instruction` has the layout of `struct sock_filter`.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 {
        // `last_os_error` only reads errno: it allocates nothing.
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    if flags & FLAG_NEW_LISTENER == 0 {
        // With TSYNC alone a positive result names the thread that could not be synchronised.
        return if result == 0 { Ok(None) } else { Err(Errno::SRCH) };
    }
    let listener = libc::c_int::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: seccomp(2) has just returned this descriptor (close-on-exec), so nothing else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) }))
}

/// Whether the kernel knows a flag of seccomp(2). Asks with a filter that cannot be read, so nothing is installed.
#[must_use]
pub fn knows_flag(flag: u32) -> bool {
    // The kernel takes these only together with a listener.
    let with = if flag == FLAG_WAIT_KILLABLE_RECV { FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: the null pointer is never read by this process; the kernel checks the flags, then answers EFAULT.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flag | with, std::ptr::null::<Program>())
    };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
