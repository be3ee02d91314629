//! OCI runtime as a library: create, start, exec, kill and delete containers from a bundle.

#![deny(unsafe_code)]

mod bundle;
pub mod cgroup;
pub mod container;
pub mod error;
mod hooks;
mod process;
mod rootfs;
pub mod security;
mod state;
mod terminal;

#[doc(hidden)]
pub mod fuzzing;

pub use brig_linux::pidfd;
pub use container::{
    Console, Container, ContainerId, ContainerState, CreateOptions, Created, Exec, ExecOptions,
    KillScope, RootfsMount, Runtime, Status, Stdio,
};
pub use error::{Error, ErrorKind, Result};

/// Names of all capabilities that a configuration can give.
pub const CAPABILITIES: [&str; 41] = brig_linux::capability::NAMES;

/// This moment, as state and logs write it: RFC 3339 in UTC with nanoseconds.
#[must_use]
pub fn timestamp() -> String {
    state::timestamp(std::time::SystemTime::now())
}

/// Keeps containers from overwriting the calling program (CVE-2019-5736): starts it once more from a read-only mount
/// where it does not run from one. To be called first thing in `main`, with the program's own arguments and
/// environment; see [`brig_linux::process::seal_executable`].
///
/// # Errors
/// When the program cannot be started in that way.
pub fn seal_executable(
    arguments: Vec<std::ffi::CString>,
    environment: Vec<std::ffi::CString>,
) -> Result<()> {
    brig_linux::process::seal_executable(arguments, environment).map(drop).map_err(Error::from)
}
