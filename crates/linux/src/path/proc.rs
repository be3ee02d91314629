//! A procfs that nobody can have mounted over.
//!
//! `/proc` belongs to whoever can mount in our namespace; a container's own `/proc` may be a tmpfs full of lies. Writes
//! whose place matters (LSM labels, sysctls, id maps) go through a mount of our own that is attached nowhere.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
    open_tree,
};

use super::resolve_with;
use crate::error::{Error, ErrorKind, Result};

/// The inode number of a procfs' root directory (`PROC_ROOT_INO`, include/linux/proc_fs.h).
const PROC_ROOT_INODE: u64 = 1;

/// A verified procfs of the calling process' PID namespace.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
}

impl Proc {
    /// A new, detached procfs (`fsopen`, Linux 5.2). Where that is not permitted, a clone of `/proc` without what
    /// is mounted in it; and where that is not either, `/proc` itself. Each is checked to be the root of a procfs.
    ///
    /// # Errors
    /// `Integrity` when `/proc` is something else; `NotFound` when there is none.
    pub fn open() -> Result<Self> {
        let root = private_mount().or_else(|_| cloned_mount()).or_else(|_| host_mount())?;
        verify(root.as_fd())?;
        Ok(Self { root })
    }

    /// Opens a file of the procfs. `self` and `thread-self` work; links out of it (`self/fd/3`, `self/root`) are
    /// refused, as is whatever is mounted inside.
    ///
    /// # Errors
    /// The system's.
    pub fn open_beneath(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path = path.as_ref();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        resolve_with(self.root.as_fd(), path, flags, Mode::empty(), resolve)
            .map_err(|errno| Error::system(format!("open /proc/{}", path.display()), errno))
    }

    /// Writes a value in one write(2), as sysctls, labels and id maps ask for.
    ///
    /// # Errors
    /// The system's; `Io` when not all of it was taken.
    pub fn write(&self, path: impl AsRef<Path>, value: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let file = self.open_beneath(path, OFlags::WRONLY)?;
        let written = rustix::io::write(&file, value)
            .map_err(|errno| Error::system(format!("write /proc/{}", path.display()), errno))?;
        if written != value.len() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("write /proc/{}: only {written} bytes were taken", path.display()),
            ));
        }
        Ok(())
    }

    /// Opens again, with other flags, what an (`O_PATH`) descriptor of the calling thread points to.
    ///
    /// # Errors
    /// The system's.
    pub fn reopen(&self, fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let directory = self.open_beneath("thread-self/fd", OFlags::PATH | OFlags::DIRECTORY)?;
        let name = fd.as_fd().as_raw_fd().to_string();
        // The one magic link followed on purpose: its target is the descriptor we hold.
        let flags = (flags - OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        rustix::fs::openat(&directory, name.as_str(), flags, Mode::empty())
            .map_err(|errno| Error::system(format!("open descriptor {name} again"), errno))
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn private_mount() -> Result<OwnedFd> {
    let attempt = |errno| Error::system("make a private procfs", errno);
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(attempt)?;
    fsconfig_create(&context).map_err(attempt)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(attempt)
}

fn cloned_mount() -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, "/proc", flags).map_err(|errno| Error::system("clone the mount /proc", errno))
}

fn host_mount() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc", flags, Mode::empty())
        .map_err(|errno| Error::system("open /proc", errno))
}

fn verify(root: BorrowedFd<'_>) -> Result<()> {
    let attempt = |errno| Error::system("check the procfs", errno);
    let filesystem = rustix::fs::fstatfs(root).map_err(attempt)?;
    let stat = rustix::fs::fstat(root).map_err(attempt)?;
    if filesystem.f_type != PROC_SUPER_MAGIC || stat.st_ino != PROC_ROOT_INODE {
        return Err(Error::new(ErrorKind::Integrity, "/proc is not the root of a procfs"));
    }
    Ok(())
}
