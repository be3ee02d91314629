//! Owner, mode, extended attributes and times of a file, by descriptor.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::is_overlay_attribute;
use crate::error::{Attempt, Result};
use crate::tarball::{Attributes, Time};

/// A path that leads to exactly what the descriptor points to, for the calls that take no `O_PATH` descriptor. The
/// magic link is followed to the object itself, even when that is a symbolic link.
pub(crate) fn magic_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens whatever `name` is, without following or using it.
pub(crate) fn open_name(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Applies attributes. Files and directories come open, all else as an `O_PATH` descriptor. The order matters: chown(2)
/// drops setuid bits and file capabilities, so the owner comes first. What is right already is left alone: a look costs
/// a fraction of a change, which the filesystem has to journal. A directory's times are left: see [`set_modified`].
pub(crate) fn apply(fd: BorrowedFd<'_>, attributes: &Attributes, kind: FileType) -> Result<()> {
    let stat = rustix::fs::fstat(fd).attempt(|| "look at what was created".into())?;
    let owner_differs = (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid);
    if owner_differs {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            .attempt(|| format!("set owner {}:{}", attributes.uid, attributes.gid))?;
    }
    if owner_differs || stat.st_mode & 0o7777 != attributes.mode {
        set_mode(fd, attributes.mode, kind)?;
    }
    for (name, value) in &attributes.xattrs {
        set_xattr(fd, name, value)?;
    }
    if kind != FileType::Directory {
        set_times(fd, attributes.modified, attributes.accessed)?;
    }
    Ok(())
}

fn set_mode(fd: BorrowedFd<'_>, mode: u32, kind: FileType) -> Result<()> {
    let bits = Mode::from_raw_mode(mode);
    match kind {
        FileType::Symlink => Ok(()),
        FileType::RegularFile | FileType::Directory => rustix::fs::fchmod(fd, bits),
        _ => rustix::fs::chmodat(CWD, magic_path(fd).as_str(), bits, AtFlags::empty()),
    }
    .attempt(|| format!("set mode {mode:o}"))
}

fn set_xattr(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> Result<()> {
    if is_overlay_attribute(name.as_bytes()) {
        tracing::warn!(name = %name.display(), "archive carries an overlayfs attribute; dropped");
        return Ok(());
    }
    match rustix::fs::setxattr(magic_path(fd).as_str(), name, value, XattrFlags::empty()) {
        // The filesystem has no such attributes, or not on this kind of file: as Docker does, go on without.
        Err(Errno::NOTSUP) => {
            tracing::warn!(name = %name.display(), "extended attribute is not supported here");
            Ok(())
        }
        Err(Errno::PERM) if name.as_bytes().starts_with(b"user.") => {
            tracing::warn!(name = %name.display(), "user attribute is not allowed on this file");
            Ok(())
        }
        other => other.attempt(|| format!("set extended attribute {}", name.display())),
    }
}

/// Sets the times of what an `O_PATH` descriptor points to; a missing access time is taken from the modification.
pub(crate) fn set_times(fd: BorrowedFd<'_>, modified: Time, accessed: Option<Time>) -> Result<()> {
    let times = Timestamps {
        last_access: timespec(accessed.unwrap_or(modified)),
        last_modification: timespec(modified),
    };
    // utimensat(2) has AT_EMPTY_PATH only since Linux 5.8 and rustix passes it through.
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
        .attempt(|| format!("set time {}", modified.seconds))
}

/// Sets only the modification time.
pub(crate) fn set_modified(fd: BorrowedFd<'_>, modified: Time) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: timespec(modified),
    };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// The attributes of what an `O_PATH` descriptor points to, without overlayfs' own.
pub(crate) fn read(fd: BorrowedFd<'_>, stat: &Stat) -> Result<Attributes> {
    Ok(Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: modified(stat),
        accessed: None,
        xattrs: read_xattrs(fd)?,
    })
}

pub(crate) fn modified(stat: &Stat) -> Time {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Time { seconds: stat.st_mtime, nanoseconds }
}

/// Extended attributes in the order of their names, without overlayfs' own.
pub(crate) fn read_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<(OsString, Vec<u8>)>> {
    let path = magic_path(fd);
    // XATTR_LIST_MAX and XATTR_SIZE_MAX (linux/limits.h) are both 64 KiB.
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::listxattr(path.as_str(), list.as_mut_slice()) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other.attempt(|| "list extended attributes".into())?,
    };
    let mut xattrs = Vec::new();
    if length == 0 {
        return Ok(xattrs);
    }
    let mut value = vec![0_u8; 64 << 10];
    for name in list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if is_overlay_attribute(name) {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        match rustix::fs::getxattr(path.as_str(), name.as_os_str(), value.as_mut_slice()) {
            Ok(length) => xattrs.push((name, value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => {
                return Err(errno).attempt(|| format!("read attribute {}", name.display()));
            }
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Whether a directory hides what is below it.
pub(crate) fn is_opaque(fd: impl AsFd) -> bool {
    let mut value = [0; 1];
    let path = magic_path(fd.as_fd());
    rustix::fs::getxattr(path.as_str(), super::OPAQUE, &mut value[..]).is_ok_and(|_| value == *b"y")
}

/// Makes a directory hide what is below it.
pub(crate) fn set_opaque(fd: impl AsFd) -> rustix::io::Result<()> {
    let path = magic_path(fd.as_fd());
    rustix::fs::setxattr(path.as_str(), super::OPAQUE, b"y", XattrFlags::empty())
}
