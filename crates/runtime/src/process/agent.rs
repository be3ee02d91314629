//! Handing the listener of a seccomp filter to the agent that answers its notifications.
//!
//! The filter may notify of, or deny, any system call, those for the handing over included. So a second thread, which the
//! filter does not bind, sends the listener, while the thread that is bound waits without a system call:
//!
//! ```text
//! thread that execs            helper
//!   start helper ─────────────▶ waits for the listener's number in shared memory
//!   seccomp(2) → listener ────▶ sendmsg(agent, state, listener)
//!   waits in memory ◀────────── outcome, ends
//!   execve
//! ```

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use brig_linux::process::{HelperStack, helper_thread};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::security::seccomp::{Listener, Program};
use crate::state::State;

/// The most bytes of the state that an agent gets.
const MESSAGE_MAX: usize = 64 * 1024;
/// The shared number of the listener before there is one.
const AWAITED: i32 = -1;
/// When there will be none.
const NONE: i32 = -2;

/// The connection to an agent.
#[derive(Debug)]
pub(crate) struct AgentPlan {
    socket: OwnedFd,
    /// The message, in memory that the child shares: its number is known only once it exists.
    message: OwnedFd,
    metadata: Option<String>,
}

impl AgentPlan {
    /// Connects to the agent.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn connect(listener: &Listener) -> Result<Self> {
        let socket = brig_linux::fd::connect_unix(listener.path())
            .map_err(|error| Error::from(error).context("reach linux.seccomp.listenerPath"))?;
        let message = rustix::fs::memfd_create(c"agent", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| Error::system("make a file for the seccomp agent", errno))?;
        let metadata = listener.metadata().map(ToOwned::to_owned);
        Ok(Self { socket: socket.into(), message, metadata })
    }

    /// Says which process the listener is of: the specification's container process state.
    ///
    /// # Errors
    /// `InvalidInput` when it is too long.
    pub(crate) fn describe(&self, state: &State, status: &str, pid: i32) -> Result<()> {
        let mut value = serde_json::json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state.as_oci(status),
        });
        if let Some(metadata) = &self.metadata {
            value["metadata"] = metadata.as_str().into();
        }
        let text = value.to_string();
        if text.len() > MESSAGE_MAX {
            let text = format!(
                "linux.seccomp.listenerMetadata and the annotations are longer than {MESSAGE_MAX} bytes"
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        rustix::io::pwrite(&self.message, text.as_bytes(), 0)
            .map(drop)
            .map_err(|errno| Error::system("write the state for the seccomp agent", errno))
    }

    /// The descriptors that the child works with.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.socket.as_raw_fd(), self.message.as_raw_fd()]
    }
}

struct Shared<'a> {
    plan: &'a AgentPlan,
    listener: AtomicI32,
    /// An error number, or 0.
    outcome: AtomicI32,
}

/// Installs a filter and hands its listener over. Child-safe. Afterwards the filter is in force.
///
/// # Errors
/// As [`Program::install`], or what sending failed with.
// Not as a part of its caller, whose entry would touch the helper's stack, page after page, in every container.
#[inline(never)]
#[expect(unsafe_code, reason = "starts the helper")]
pub(crate) fn install(filter: &Program, plan: &AgentPlan) -> rustix::io::Result<()> {
    let shared = Shared { plan, listener: AtomicI32::new(AWAITED), outcome: AtomicI32::new(0) };
    let running = AtomicI32::new(0);
    let mut stack = HelperStack::new();
    let argument = std::ptr::from_ref(&shared).cast_mut().cast::<c_void>();
    // SAFETY: `deliver` makes system calls through rustix only and neither allocates nor locks; this function makes one
    // other call meanwhile, whose errno nobody else sets, and does not return before the thread has ended.
    unsafe { helper_thread(&mut stack, &running, deliver, argument) }?;
    let installed = filter.install_alone();
    let number = match &installed {
        Ok(Some(listener)) => listener.as_raw_fd(),
        Ok(None) | Err(_) => NONE,
    };
    shared.listener.store(number, Ordering::Release);
    while running.load(Ordering::Acquire) != 0 {
        std::hint::spin_loop();
    }
    // Closed by the exec: closing is a system call, which the filter may not allow.
    std::mem::forget(installed?);
    let outcome = shared.outcome.load(Ordering::Acquire);
    if outcome == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(outcome)) }
}

#[expect(unsafe_code, reason = "the argument of a C function")]
extern "C" fn deliver(argument: *mut c_void) -> c_int {
    // SAFETY: `install` passes a Shared that outlives this function's use of it.
    let shared = unsafe { &*argument.cast::<Shared<'_>>() };
    let listener = loop {
        match shared.listener.load(Ordering::Acquire) {
            AWAITED => rustix::thread::sched_yield(),
            number => break number,
        }
    };
    let outcome = match listener {
        NONE => 0,
        number => send(shared.plan, number).map_or_else(|errno| errno.raw_os_error(), |()| 0),
    };
    shared.outcome.store(outcome, Ordering::Release);
    0
}

#[expect(unsafe_code, reason = "the other thread owns the listener")]
fn send(plan: &AgentPlan, listener: RawFd) -> rustix::io::Result<()> {
    let mut buffer = [0_u8; MESSAGE_MAX];
    let length = rustix::io::pread(&plan.message, &mut buffer, 0)?;
    // SAFETY: the other thread keeps the descriptor open until it execs, which it does not before this has returned.
    let listener = unsafe { BorrowedFd::borrow_raw(listener) };
    brig_linux::fd::send_with_fds(plan.socket.as_fd(), &buffer[..length], &[listener]).map(drop)
}
