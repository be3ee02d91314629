//! `tmpcopyup`: a tmpfs that starts with what the image has at its place. Nothing here allocates.
//!
//! Source and destination are walked by descriptors, no name is followed when it is a link, and so whatever somebody
//! else does to the image meanwhile, nothing outside is read.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// Directories in directories; each level takes a stack frame with buffers.
const DEPTH_MAX: usize = 128;
const ENTRIES_BUFFER: usize = 4096;
/// How much one sendfile(2) is asked for, in bytes.
const CHUNK: usize = 1 << 24;

/// Copies what is in the directory `from` into the directory `to`, with its owners, modes and times.
///
/// # Errors
/// The system's; `ELOOP` for a tree deeper than 128 directories.
pub(super) fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    let to = rustix::fs::openat(to, c".", flags, Mode::empty())?;
    copy_directory(&from, &to, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
    if depth == DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    let mut buffer = [MaybeUninit::uninit(); ENTRIES_BUFFER];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(&source, &made, depth + 1)?;
            keep_attributes(&made, &stat, mode)
        }
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let source = rustix::fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
            let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let made = rustix::fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
            while rustix::fs::sendfile(&made, &source, None, CHUNK)? > 0 {}
            keep_attributes(&made, &stat, mode)
        }
        FileType::Symlink => {
            let mut target = [0_u8; 4096];
            // One byte less, so that the text ends with a zero.
            let length = rustix::fs::readlinkat_raw(from, name, &mut target[..4095])?;
            let target = CStr::from_bytes_with_nul(&target[..=length]);
            rustix::fs::symlinkat(target.map_err(|_| Errno::INVAL)?, to, name)?;
            keep_owner(to, name, &stat)
        }
        FileType::Socket => Ok(()),
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            keep_owner(to, name, &stat)
        }
    }
}

fn ids(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn keep_owner(directory: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (user, group) = ids(stat);
    rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

/// The owner first: a change of owner takes set-user-id bits away.
fn keep_attributes(file: impl AsFd, stat: &Stat, mode: Mode) -> rustix::io::Result<()> {
    let (user, group) = ids(stat);
    rustix::fs::fchown(&file, user, group)?;
    rustix::fs::fchmod(&file, mode)?;
    let time = |tv_sec, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(&file, &times)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_with_its_attributes_and_without_following_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("deep")).unwrap();
        std::fs::write(from.path().join("deep/file"), vec![7; 100_000]).unwrap();
        let mode = std::fs::Permissions::from_mode(0o4751);
        std::fs::set_permissions(from.path().join("deep/file"), mode).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let open = |path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
        copy_contents(open(from.path()).as_fd(), open(to.path()).as_fd()).unwrap();
        let copied = std::fs::metadata(to.path().join("deep/file")).unwrap();
        let original = std::fs::metadata(from.path().join("deep/file")).unwrap();
        assert_eq!(
            (copied.len(), copied.mode(), copied.mtime_nsec()),
            (100_000, original.mode(), original.mtime_nsec())
        );
        let link = std::fs::read_link(to.path().join("link")).unwrap();
        assert_eq!(link, std::path::Path::new("/etc/passwd"));
    }

    #[test]
    fn a_tree_without_end_ends() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(from.path().join("d/".repeat(DEPTH_MAX + 1))).unwrap();
        let open = |path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
        let error = copy_contents(open(from.path()).as_fd(), open(to.path()).as_fd());
        assert_eq!(error.unwrap_err(), Errno::LOOP);
    }
}
