//! OCI runtime as a library: create, start, exec, kill and delete containers from a bundle.
//!
//! ```no_run
//! use std::os::fd::AsFd as _;
//! use std::path::Path;
//!
//! use brig_runtime::{ContainerId, CreateOptions, ExecOptions, Runtime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::new("/run/example".into());
//! let id = ContainerId::parse("web")?;
//! let created = runtime.create(&id, Path::new("/bundles/web"), CreateOptions::default())?;
//! created.container.start()?;
//!
//! let process = serde_json::from_str(
//!     r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"], "env": ["PATH=/bin"]}"#,
//! )?;
//! let exec = created.container.exec(&process, ExecOptions::default())?;
//! println!("exec: {:?}", brig_runtime::pidfd::wait_child(exec.pidfd.as_fd())?);
//!
//! println!("init: {:?}", brig_runtime::pidfd::wait_child(created.pidfd.as_fd())?);
//! created.container.delete(false)?;
//! # Ok(())
//! # }
//! ```
//!
//! Init and further processes are direct children of the caller, who waits for them by their pidfds; no helper process
//! stays. Every call may come from any thread, and from another process than the one that created the container. The
//! crate keeps no global state, reads no environment and prints nothing. A program that makes containers without user
//! namespaces calls [`seal_executable`] first thing in `main`.
//!
//! A caller who is not root makes containers in user namespaces ([`Runtime::rootless`], [`Runtime::id_map_programs`]):
//! with the bind sources and devices that it can reach itself, the flags of the host's mounts, and cgroups where one is
//! delegated to it.
//!
//! What the specification has and this crate cannot do is refused by name, never ignored: `linux.personality.flags`, for
//! which the specification defines no values. `linux.intelRdt` is tested on a recorded tree only.
//!
//! Kernel: 5.12 (mount_setattr(2)); time namespaces 5.6, `nosymfollow` 5.14.

#![deny(unsafe_code)]

mod bundle;
pub mod cgroup;
pub mod container;
#[cfg(feature = "checkpoint")]
mod criu;
pub mod error;
pub mod features;
mod hooks;
mod network;
mod notify;
mod process;
#[doc(hidden)]
pub mod protection;
mod ranges;
mod resctrl;
mod rootfs;
pub mod security;
mod state;
mod terminal;

#[doc(hidden)]
pub mod fuzzing;

pub use brig_linux::pidfd;
#[cfg(feature = "checkpoint")]
pub use container::{CheckpointOptions, CriuOptions, RestoreOptions};
pub use container::{
    Console, Container, ContainerId, ContainerState, CreateOptions, Created, Exec, ExecOptions,
    KillScope, RootfsMount, Runtime, Status, Stdio,
};
pub use error::{Error, ErrorKind, Result};
pub use process::id_maps::IdMapPrograms;

/// The version of the OCI runtime specification that this runtime follows.
pub const SPEC_VERSION: &str = "1.3.0";

/// Names of all capabilities that a configuration can give.
pub const CAPABILITIES: [&str; 41] = brig_linux::capability::NAMES;

/// This moment, as state and logs write it: RFC 3339 in UTC with nanoseconds.
#[must_use]
pub fn timestamp() -> String {
    state::timestamp(std::time::SystemTime::now())
}

/// Sends a message with one descriptor over a Unix socket.
///
/// # Errors
/// As sendmsg(2).
pub fn send_descriptor(
    socket: std::os::fd::BorrowedFd<'_>,
    message: &[u8],
    descriptor: std::os::fd::BorrowedFd<'_>,
) -> Result<()> {
    brig_linux::fd::send_with_fds(socket, message, &[descriptor])
        .map(drop)
        .map_err(|errno| Error::system("send a descriptor", errno))
}

/// Checks that the descriptors after standard error which are to be passed on are open. To be called before this process
/// opens anything of its own, which would take the number of one that is missing, and be passed on in its stead: a lock
/// or a socket of the runtime in a container.
///
/// # Errors
/// `InvalidInput`, with the number.
pub fn check_preserved(count: u32) -> Result<()> {
    let missing = (3..count.saturating_add(3))
        .find(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err());
    let Some(number) = missing else { return Ok(()) };
    let text = format!("descriptor {number} is to be passed on to the process and is not open");
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// Keeps containers from overwriting the calling program (CVE-2019-5736): starts it once more from a read-only mount
/// where it does not run from one. To be called first thing in `main`, with the program's own arguments and environment
/// (`std::env::args_os()`, `std::env::vars_os()`); see [`brig_linux::process::seal_executable`].
///
/// # Errors
/// When the program cannot be started in that way.
pub fn seal_executable(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<()> {
    brig_linux::process::seal_executable(arguments, environment).map_err(Error::from)
}
