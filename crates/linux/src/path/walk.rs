//! Creating what is missing along a path.
//!
//! The kernel cannot resolve a path that is not there yet, so this module walks by itself: a stack of descriptors,
//! one per directory entered. `..` pops the stack and is never asked of the kernel, so a directory that is moved
//! away meanwhile cannot lead upwards out of the root; every step opens one name with `O_NOFOLLOW`, so a link is
//! seen as a link and expanded here.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{LINKS_MAX, RESOLVE_ATTEMPTS, Root, file_type, read_link_fd};
use crate::error::{Error, Result};

/// What the last name becomes when it is missing.
#[derive(Clone, Copy)]
enum Missing {
    Directory(Mode),
    File { mode: Mode, directory_mode: Mode },
}

enum Step {
    Up,
    Name(OsString),
}

impl Root {
    /// Creates a directory and the missing ones above it, and returns it opened `O_PATH`. Links on the way are
    /// followed inside the root, also those whose target is yet to be created. Directories that are there keep
    /// their mode.
    ///
    /// # Errors
    /// `InvalidInput` when something on the way is not a directory or there are too many links; the system's.
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        create(self.as_fd(), path, Missing::Directory(mode)).map_err(|errno| {
            Error::system(format!("create directory {} beneath root", path.display()), errno)
        })
    }

    /// Creates an empty regular file, and the missing directories above it, unless the path is there already (as
    /// any kind of file). Returns it opened `O_PATH`; for the target of a mount. Links are followed as in
    /// [`Root::create_dir_all`].
    ///
    /// # Errors
    /// As [`Root::create_dir_all`].
    pub fn create_file_all(
        &self,
        path: impl AsRef<Path>,
        mode: Mode,
        directory_mode: Mode,
    ) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.resolve(path) {
            Ok(fd) => return Ok(fd),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        create(self.as_fd(), path, Missing::File { mode, directory_mode }).map_err(|errno| {
            Error::system(format!("create file {} beneath root", path.display()), errno)
        })
    }
}

fn create(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> rustix::io::Result<OwnedFd> {
    let top = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    let mut entered = vec![top];
    // The next step is the last of the vector.
    let mut steps = Vec::new();
    push_steps(&mut steps, path);
    let mut links_left = LINKS_MAX;
    while let Some(step) = steps.pop() {
        let Step::Name(name) = step else {
            if entered.len() > 1 {
                entered.pop();
            }
            continue;
        };
        let Some(current) = entered.last() else { return Err(Errno::IO) };
        let found = open_or_create(current.as_fd(), &name, steps.is_empty(), missing)?;
        match file_type(&rustix::fs::fstat(&found)?) {
            FileType::Symlink => {
                links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
                let target = read_link_fd(found.as_fd())?;
                if target.is_absolute() {
                    entered.truncate(1);
                }
                push_steps(&mut steps, &target);
            }
            FileType::Directory => entered.push(found),
            _ if steps.is_empty() && matches!(missing, Missing::File { .. }) => return Ok(found),
            _ => return Err(Errno::NOTDIR),
        }
    }
    entered.pop().ok_or(Errno::IO)
}

fn push_steps(steps: &mut Vec<Step>, path: &Path) {
    let new = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::ParentDir => Some(Step::Up),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    steps.extend(new);
}

/// Opens one name of a directory, or creates it and opens what is then there (somebody may be faster).
fn open_or_create(
    directory: BorrowedFd<'_>,
    name: &OsString,
    last: bool,
    missing: Missing,
) -> rustix::io::Result<OwnedFd> {
    for _ in 0..RESOLVE_ATTEMPTS {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let created = match missing {
            Missing::File { mode, .. } if last => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(directory, name, flags, mode).map(drop)
            }
            Missing::Directory(mode) | Missing::File { directory_mode: mode, .. } => {
                rustix::fs::mkdirat(directory, name, mode)
            }
        };
        match created {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::AGAIN)
}
