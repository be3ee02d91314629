//! What callers pass in: identifiers and options.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The longest id: a file name.
const ID_MAX: usize = 255;

/// The name of a container: 1 to 255 letters, digits, `_`, `+`, `-` and `.`, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks an id.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let valid = (1..=ID_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && text != "."
            && text != "..";
        if valid {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(64).collect();
        Err(Error::new(ErrorKind::InvalidInput, format!("invalid container id {shown:?}"))
            .with_advice("1 to 255 letters, digits, '_', '+', '-' and '.'"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Standard input, output and error of a process; `None` inherits the caller's.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// Where the master side of a terminal goes, when the process asks for a terminal.
#[derive(Debug, Default)]
pub enum Console {
    /// Nowhere: asking for a terminal is an error.
    #[default]
    None,
    /// To whoever listens on this Unix socket, as SCM_RIGHTS (the engines' `--console-socket`).
    Socket(PathBuf),
    /// To the caller, in [`Created::console`](crate::Created) or [`Exec::console`](crate::Exec).
    Return,
}

/// A mount that makes up the root filesystem, attached only inside the container's mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsMount {
    /// `overlay`, `bind`, or another filesystem.
    pub fstype: String,
    /// Device, directory, or anything for filesystems without source.
    pub source: String,
    /// As for mount(8)'s `-o`, one per item.
    pub options: Vec<String>,
    /// Where below the root it is attached; empty is the root itself.
    pub target: String,
}

/// Attaches mounts that make up a root filesystem at a directory of the host, one above the other: for another runtime
/// program, which only takes what is mounted. Ours mounts them in the container's own mount namespace.
///
/// # Errors
/// A mount cannot be made, or is for a place below the root (`Unsupported`). Those made before stay.
pub fn mount_rootfs(mounts: &[RootfsMount], directory: &std::path::Path) -> Result<()> {
    crate::rootfs::mounts::mount_on_host(mounts, directory)
}

/// How to create a container.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// The standard descriptors of its init.
    pub stdio: Stdio,
    /// Where its terminal goes.
    pub console: Console,
    /// A Unix socket that gets the descriptor of init, as SCM_RIGHTS.
    pub pidfd_socket: Option<PathBuf>,
    /// A file to write the number of init to.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after standard error to pass on; see [`check_preserved`](crate::check_preserved).
    pub preserve_fds: u32,
    /// How many listening sockets, in front of those, to pass on by the protocol of sd_listen_fds(3): the program
    /// finds `LISTEN_FDS` and `LISTEN_PID` in its environment.
    pub listen_fds: u32,
    /// Give the program a socket to say that it is ready (sd_notify(3)); see
    /// [`Container::notify_socket`](crate::Container::notify_socket).
    pub notify: bool,
    /// Mounts that make up the root filesystem, in order; empty when it is there already.
    pub rootfs_mounts: Vec<RootfsMount>,
    /// `MS_MOVE` and chroot instead of pivot_root, for a host that runs from an initial ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// How to run a further process.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Its standard descriptors.
    pub stdio: Stdio,
    /// Where its terminal goes.
    pub console: Console,
    /// A Unix socket that gets its descriptor, as SCM_RIGHTS.
    pub pidfd_socket: Option<PathBuf>,
    /// A file to write its number to.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after standard error to pass on.
    pub preserve_fds: u32,
    /// Cgroups below the container's own to run in instead: controllers of v1 hierarchies, or none for all hierarchies,
    /// and a path.
    pub cgroups: Vec<(Vec<String>, PathBuf)>,
    /// Run in a paused container: the process freezes at once.
    pub ignore_paused: bool,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillScope {
    /// The init process.
    Init,
    /// Every process of the container.
    All,
}

/// Where a container is in its life (OCI runtime specification, `State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; init waits for the start.
    Created,
    /// The user's program runs.
    Running,
    /// All processes are frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names_without_surprises() {
        for good in ["a", "web-1", "a.b_c+d", &"x".repeat(255)] {
            assert_eq!(ContainerId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert_eq!(ContainerId::parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
