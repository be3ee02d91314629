//! Paths beneath a root that somebody else may be changing.
//!
//! A container can rename a directory and put a symbolic link in its place between any two of our system calls. So
//! nothing here joins strings and hopes: every path is resolved by the kernel in one step, by
//! `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` from the descriptor of the root, and what follows works on the
//! descriptor that came back. `..` at the root stays at the root; absolute links are relative to the root.
//!
//! ```text
//! Root ──open_beneath──▶ OwnedFd            one openat2, links followed inside the root
//!      ──parent────────▶ (OwnedFd, name)    directory resolved, last name untouched: *at(2) calls on it cannot
//!                                           leave, since one name without a slash is never followed by them
//! Proc ──open──────────▶ OwnedFd            a procfs nobody can mount over
//! ```
//!
//! Limits: a resolution that races with renames is tried [`RESOLVE_ATTEMPTS`] times, at most [`LINKS_MAX`] links
//! are followed where this module walks by itself (as the kernel does), and [`Root::remove_all`] holds at most
//! a hundred descriptors however deep the tree is.
//!
//! Kernel: `openat2` is in Linux 5.6; there is no fallback, Brig needs 5.10.

mod proc;
mod remove;
mod walk;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

pub use proc::Proc;

/// How often a resolution is tried when renames or mounts make the kernel answer EAGAIN (openat2(2)).
pub const RESOLVE_ATTEMPTS: u32 = 128;

/// How many symbolic links are followed where links may lead to something that is yet to be created; the kernel's
/// own limit (path_resolution(7)).
pub const LINKS_MAX: u32 = 40;

/// A directory beneath which paths given by somebody else are resolved.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// One name of a directory, as [`Root::read_dir`] and [`entries`] give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, never `.` or `..`.
    pub name: OsString,
    /// What the directory says it is; `Unknown` on filesystems that do not say.
    pub file_type: FileType,
    /// Its inode number.
    pub inode: u64,
}

impl Root {
    /// Opens a directory of the host, whose path is trusted (links in it are followed).
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or `InvalidInput` when it is not a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Error::system(format!("open root {}", path.display()), errno))?;
        Ok(Self { fd })
    }

    /// Takes a directory that is open already, for instance a detached mount.
    ///
    /// # Errors
    /// `InvalidInput` when it is not a directory.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| Error::system("look at the root's descriptor", errno))?;
        if file_type(&stat) != FileType::Directory {
            return Err(Error::new(ErrorKind::InvalidInput, "the root is not a directory"));
        }
        Ok(Self { fd })
    }

    /// A second handle on the same root.
    ///
    /// # Errors
    /// `Exhausted` when no descriptor is left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|source| Error::system("duplicate root", source))?;
        Ok(Self { fd })
    }

    /// Opens a path beneath the root, following links inside it. `O_CLOEXEC` is always added; with `O_NOFOLLOW` a
    /// final link is not followed (opening it fails unless `O_PATH` is given too).
    ///
    /// # Errors
    /// The system's; `Conflict` when renames kept disturbing the resolution.
    pub fn open_beneath(
        &self,
        path: impl AsRef<Path>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let path = path.as_ref();
        open_in_root(self.fd.as_fd(), path, flags, mode)
            .map_err(|errno| Error::system(format!("open {} beneath root", path.display()), errno))
    }

    /// Resolves a path to an `O_PATH` descriptor, following links inside the root.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_beneath(path, OFlags::PATH, Mode::empty())
    }

    /// As [`Root::resolve`], but a final link is returned itself.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn resolve_nofollow(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// A directory beneath the root as a root of its own: nothing resolved there gets out of it.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Self> {
        let fd = self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens a regular file for reading; anything else (a FIFO that would block, a device) is refused.
    ///
    /// # Errors
    /// As [`Root::open_beneath`]; `InvalidInput` when it is not a regular file.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        // O_NONBLOCK: a FIFO without writer would hang the open. It has no effect on regular files.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_beneath(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| Error::system(format!("stat {}", path.display()), errno))?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} is not a regular file", path.display()),
            ));
        }
        Ok(File::from(fd))
    }

    /// Reads a whole regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Root::open_file`]; `Exhausted` when the file is larger.
    pub fn read(&self, path: impl AsRef<Path>, limit_bytes: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let file = self.open_file(path)?;
        let mut content = Vec::new();
        file.take(limit_bytes.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|source| Error::system(format!("read {}", path.display()), source))?;
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit_bytes {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("{} is larger than {limit_bytes} bytes", path.display()),
            ));
        }
        Ok(content)
    }

    /// Resolves the directory that holds the path's last name, and that name. The name is a single component,
    /// never `.` or `..`, so the `*at` calls with it stay in that directory.
    ///
    /// # Errors
    /// As [`Root::open_beneath`]; `InvalidInput` for the root itself and for paths that end in `.` or `..`.
    pub fn parent(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let (directory, name) = split(path.as_ref())?;
        let fd = self.open_beneath(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((fd, name.to_owned()))
    }

    /// What stat(2) says of a path, links followed inside the root.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let path = path.as_ref();
        stat_of(self.resolve(path)?.as_fd(), path)
    }

    /// What lstat(2) says of a path: of the link itself when it ends in one.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn stat_nofollow(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let path = path.as_ref();
        stat_of(self.resolve_nofollow(path)?.as_fd(), path)
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// As [`Root::open_beneath`]; `NotFound` or `InvalidInput` when it is not a link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let link = self.resolve_nofollow(path)?;
        read_link_fd(link.as_fd())
            .map_err(|errno| Error::system(format!("read link {}", path.display()), errno))
    }

    /// The names in a directory, in the directory's own order.
    ///
    /// # Errors
    /// As [`Root::open_beneath`].
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let path = path.as_ref();
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        entries(fd).map_err(|errno| Error::system(format!("list {}", path.display()), errno))
    }

    /// Creates one directory.
    ///
    /// # Errors
    /// As [`Root::parent`]; `AlreadyExists`.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, &name, mode)
            .map_err(|errno| Error::system(format!("create directory {}", path.display()), errno))
    }

    /// Creates a symbolic link at `path` whose text is `target`.
    ///
    /// # Errors
    /// As [`Root::parent`]; `AlreadyExists`.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target.as_ref(), &parent, &name)
            .map_err(|errno| Error::system(format!("create link {}", path.display()), errno))
    }

    /// Creates a second name for a file; a link at `existing` is linked itself, not followed.
    ///
    /// # Errors
    /// As [`Root::parent`]; `AlreadyExists`.
    pub fn hard_link(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (from, from_name) = self.parent(existing)?;
        let (to, to_name) = self.parent(path)?;
        rustix::fs::linkat(&from, &from_name, &to, &to_name, AtFlags::empty())
            .map_err(|errno| Error::system(format!("create hard link {}", path.display()), errno))
    }

    /// Renames within the root.
    ///
    /// # Errors
    /// As [`Root::parent`], and renameat2(2)'s.
    pub fn rename(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from_fd, from_name) = self.parent(from)?;
        let (to_fd, to_name) = self.parent(to)?;
        rustix::fs::renameat_with(&from_fd, &from_name, &to_fd, &to_name, flags).map_err(|errno| {
            Error::system(format!("rename {} to {}", from.display(), to.display()), errno)
        })
    }

    /// Removes one name that is not a directory.
    ///
    /// # Errors
    /// As [`Root::parent`].
    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<()> {
        self.unlink_with(path.as_ref(), AtFlags::empty())
    }

    /// Removes one empty directory.
    ///
    /// # Errors
    /// As [`Root::parent`]; `Conflict` when it is not empty.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        self.unlink_with(path.as_ref(), AtFlags::REMOVEDIR)
    }

    fn unlink_with(&self, path: &Path, flags: AtFlags) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::unlinkat(&parent, &name, flags)
            .map_err(|errno| Error::system(format!("remove {}", path.display()), errno))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `openat2` beneath a borrowed directory, as [`Root::open_beneath`] does, for loops that keep their own descriptors.
///
/// # Errors
/// The system's own; EAGAIN once [`RESOLVE_ATTEMPTS`] are used up.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    resolve_with(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The names in an open directory, without `.` and `..`.
///
/// # Errors
/// The system's own.
pub fn entries(directory: OwnedFd) -> rustix::io::Result<Vec<DirEntry>> {
    let mut names = Vec::new();
    for entry in Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(DirEntry {
                name: OsString::from_vec(name.to_vec()),
                file_type: entry.file_type(),
                inode: entry.ino(),
            });
        }
    }
    Ok(names)
}

/// The file type in a stat record.
#[must_use]
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn resolve_with(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    // openat2 refuses an empty path and, unlike open, mode bits without O_CREAT.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mode =
        if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) { mode } else { Mode::empty() };
    let mut attempts = RESOLVE_ATTEMPTS;
    loop {
        match rustix::fs::openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempts > 0 => attempts -= 1,
            other => return other,
        }
    }
}

/// The directory part and last name of a path.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    let refuse = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("path {} does not name an entry of a directory", path.display()),
        )
    };
    // `components()` drops a trailing "/." silently, so look at the bytes.
    let bytes = path.as_os_str().as_bytes();
    let trimmed_end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    let trimmed = &bytes[..trimmed_end];
    let name_start = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let name = OsStr::from_bytes(&trimmed[name_start..]);
    match Path::new(name).components().next() {
        Some(Component::Normal(_)) => {}
        _ => return Err(refuse()),
    }
    let directory = match &trimmed[..name_start] {
        b"" => Path::new("."),
        directory => Path::new(OsStr::from_bytes(directory)),
    };
    Ok((directory, name))
}

fn stat_of(fd: BorrowedFd<'_>, path: &Path) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|errno| Error::system(format!("stat {}", path.display()), errno))
}

fn read_link_fd(link: BorrowedFd<'_>) -> rustix::io::Result<PathBuf> {
    let text = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(text.into_bytes())))
}
