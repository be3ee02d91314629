//! Removing a tree by descriptors: never follows a link, never enters another mount, bounded descriptors.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Root, entries, resolve_with};
use crate::error::{Error, ErrorKind, Result};

/// How many directories are held open at once, beside those of the caller.
const DEPTH_MAX: usize = 100;

impl Root {
    /// Removes a path and all beneath it. A link is removed itself; nothing behind a link or in another mount is
    /// touched. A path that is not there is success.
    ///
    /// # Errors
    /// As [`Root::parent`]; `Conflict` when something keeps filling the tree or a mount sits in it.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        remove_entry(parent.as_fd(), &name)
            .map_err(|errno| Error::system(format!("remove tree {}", path.display()), errno))
    }

    /// Removes all that is in a directory, but not the directory.
    ///
    /// # Errors
    /// As [`Root::remove_all`].
    pub fn remove_contents(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        for entry in self.read_dir(path)? {
            let directory =
                self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            remove_entry(directory.as_fd(), &entry.name).map_err(|errno| {
                Error::system(
                    format!("remove {} in {}", entry.name.display(), path.display()),
                    errno,
                )
            })?;
        }
        Ok(())
    }
}

/// Removes `name` in `parent`, whatever it is.
///
/// # Errors
/// The system's own. ENOENT counts as success.
pub(crate) fn remove_entry(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        // POSIX allows EPERM for directories; Linux filesystems over FUSE use it.
        Err(Errno::PERM) if is_directory(parent, name) => {}
        Err(errno) => return Err(errno),
    }
    let Some(top) = open_directory(parent, name)? else { return remove_raced(parent, name) };
    let mut deep = Deep {
        top: top.try_clone().map_err(|error| io_errno(&error))?,
        next: 0,
        pending: Vec::new(),
    };
    empty_directory(&top, 0, &mut deep)?;
    while let Some(moved) = deep.pending.pop() {
        if let Some(directory) = open_directory(deep.top.as_fd(), &moved)? {
            empty_directory(&directory, 0, &mut deep)?;
        }
        remove_directory(deep.top.as_fd(), &moved)?;
    }
    remove_directory(parent, name)
}

/// Directories too deep to hold open were renamed into the top one, to be emptied from there.
struct Deep {
    top: OwnedFd,
    next: u64,
    pending: Vec<OsString>,
}

fn empty_directory(directory: &OwnedFd, depth: usize, deep: &mut Deep) -> rustix::io::Result<()> {
    let listing = directory.try_clone().map_err(|error| io_errno(&error))?;
    for entry in entries(listing)? {
        let name = entry.name.as_os_str();
        if entry.file_type != FileType::Directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if depth >= DEPTH_MAX {
            deep.adopt(directory, name)?;
            continue;
        }
        match open_directory(directory.as_fd(), name)? {
            Some(child) => {
                empty_directory(&child, depth + 1, deep)?;
                remove_directory(directory.as_fd(), name)?;
            }
            None => remove_raced(directory.as_fd(), name)?,
        }
    }
    Ok(())
}

impl Deep {
    fn adopt(&mut self, directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
        loop {
            let adopted = OsString::from(format!(".brig-remove-{}", self.next));
            self.next += 1;
            match rustix::fs::renameat_with(
                directory,
                name,
                &self.top,
                &adopted,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => {
                    self.pending.push(adopted);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Opens a child directory of the same mount; `None` when it is gone or no longer a directory.
fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match resolve_with(parent, Path::new(name), flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        // A mount in the tree: its content is not ours to remove.
        Err(Errno::XDEV) => Err(Errno::BUSY),
        Err(errno) => Err(errno),
    }
}

/// The directory became something else meanwhile: remove that, without looking further.
fn remove_raced(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| super::file_type(&stat) == FileType::Directory)
}

fn io_errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
