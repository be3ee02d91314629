//! Network namespaces at a path, and work inside of them.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use brig_linux::namespace;
use brig_linux::netlink::{self, Protocol, Socket};

use crate::{Error, ErrorKind, Result};

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Makes a network namespace whose loopback link is up and keeps it alive by a bind mount at `path`. A namespace that
/// is there already is kept as it is.
///
/// # Errors
/// `Denied` without `CAP_SYS_ADMIN`; `NotFound` when the directory is missing; `AlreadyExists` when something else
/// than a namespace or an empty file is at `path`.
pub fn create(path: &Path) -> Result<()> {
    if !is_namespace(path)? {
        remove_empty_file(path)?;
        namespace::persist_network(path)?;
    }
    let netns = open(path)?;
    let mut socket = Socket::open_in(netns.as_fd(), Protocol::Route)?;
    Ok(netlink::set_loopback_up(&mut socket)?)
}

/// Detaches the namespace from `path` and removes the file; nothing there is fine. The kernel destroys the namespace
/// and its links when the last process and descriptor are gone.
///
/// # Errors
/// What umount2(2) and unlink(2) report.
pub fn remove(path: &Path) -> Result<()> {
    match namespace::forget(path) {
        Err(error) if error.kind() != brig_linux::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread inside the namespace at `path`. Sockets made there stay there.
///
/// # Errors
/// What setns(2) reports, or what `work` returns.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let netns = open(path)?;
    namespace::in_namespace(netns.as_fd(), work)?
}

pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|source| {
        Error::io(format!("open network namespace {}", path.display()), source)
    })?;
    if !is_namespace(path)? {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "open network namespace {}: the file is no namespace (was it unmounted?)",
                path.display()
            ),
        ));
    }
    Ok(file)
}

fn is_namespace(path: &Path) -> Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(status) => Ok(u64::try_from(status.f_type).is_ok_and(|magic| magic == NSFS_MAGIC)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => {
            Err(Error::errno(format!("examine network namespace {}", path.display()), errno))
        }
    }
}

/// A crash between making the file and mounting on it leaves an empty file, as does a reboot off a tmpfs.
fn remove_empty_file(path: &Path) -> Result<()> {
    let attempt = || format!("make network namespace {}", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            std::fs::remove_file(path).map_err(|source| Error::io(attempt(), source))
        }
        Ok(_) => {
            Err(Error::new(ErrorKind::AlreadyExists, format!("{}: the path is taken", attempt())))
        }
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io(attempt(), source)),
    }
}
