//! Namespaces: entering them from a throw-away thread, and keeping them alive at a path.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::{Error, ErrorKind, Result};

/// Runs `work` on a fresh thread that has entered the namespace `fd` (network, IPC, UTS, cgroup or mount), and
/// answers what it answers. The calling thread stays where it is; sockets opened inside stay in that namespace.
///
/// # Errors
/// When no thread can be made or the namespace cannot be entered (setns(2)).
pub fn in_namespace<T: Send>(fd: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    on_own_thread(|| {
        // A mount namespace can only be entered by a thread that shares its root and directory with no other.
        crate::process::unshare(UnshareFlags::FS)
            .and_then(|()| rustix::thread::move_into_link_name_space(fd, None))
            .map_err(|errno| Error::system("enter a namespace", errno))?;
        Ok(work())
    })?
}

/// Makes a new network namespace and keeps it alive by a bind mount at `path`, which is created as an empty file.
///
/// # Errors
/// `AlreadyExists` when there is something at `path`; `Denied` without CAP_SYS_ADMIN.
pub fn persist_network(path: &Path) -> Result<()> {
    let attempt = || format!("make network namespace {}", path.display());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::RDONLY;
    rustix::fs::openat(CWD, path, flags, Mode::RUSR)
        .map_err(|errno| Error::system(attempt(), errno))?;
    let made = on_own_thread(|| {
        crate::process::unshare(UnshareFlags::NEWNET)?;
        rustix::mount::mount_bind(c"/proc/thread-self/ns/net", path)
    });
    let made = made.and_then(|done| done.map_err(|errno| Error::system(attempt(), errno)));
    if made.is_err() {
        // The failure that matters is reported; a file that cannot be removed is an empty file.
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Drops a namespace kept by [`persist_network`]: detaches the mount and removes the file. A path that is not there
/// is already dropped.
///
/// # Errors
/// The system's.
pub fn forget(path: &Path) -> Result<()> {
    let attempt = || format!("remove namespace {}", path.display());
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    loop {
        match rustix::mount::unmount(path, flags) {
            Ok(()) => {}
            // EINVAL: not, or no longer, a mount point.
            Err(rustix::io::Errno::INVAL) => break,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::system(attempt(), errno)),
        }
    }
    std::fs::remove_file(path).map_err(|source| Error::system(attempt(), source))
}

/// The kinds of namespace, each with its file in `/proc/PID/ns`.
pub const FILES: [(LinkNameSpaceType, &str); 8] = [
    (LinkNameSpaceType::User, "user"),
    (LinkNameSpaceType::ControlGroup, "cgroup"),
    (LinkNameSpaceType::InterProcessCommunication, "ipc"),
    (LinkNameSpaceType::HostNameAndNISDomainName, "uts"),
    (LinkNameSpaceType::Network, "net"),
    (LinkNameSpaceType::ProcessID, "pid"),
    (LinkNameSpaceType::Mount, "mnt"),
    (LinkNameSpaceType::Time, "time"),
];

/// Whether two descriptors of namespaces mean the same one.
///
/// # Errors
/// The system's.
pub fn same(left: impl AsFd, right: impl AsFd) -> Result<bool> {
    let stat = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd).map_err(|errno| Error::system("look at a namespace", errno))
    };
    let (left, right) = (stat(left.as_fd())?, stat(right.as_fd())?);
    Ok((left.st_dev, left.st_ino) == (right.st_dev, right.st_ino))
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)
            .map_err(|source| Error::system("make a thread", source))?;
        thread.join().map_err(|_| Error::new(ErrorKind::Io, "work inside a namespace panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_network_namespace_can_be_entered_and_dropped() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED a_kept_network_namespace_can_be_entered_and_dropped: not root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net");
        persist_network(&path).unwrap();
        assert_eq!(persist_network(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let file = std::fs::File::open(&path).unwrap();
        let inside =
            in_namespace(file.as_fd(), || std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        assert_ne!(inside.unwrap(), std::fs::read_link("/proc/self/ns/net").unwrap());
        let own = std::fs::File::open("/proc/self/ns/net").unwrap();
        assert!(!same(&file, &own).unwrap());
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert!(!path.exists());
    }
}
