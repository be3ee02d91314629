//! An open cgroup directory: its files are read and written by name beneath one descriptor.
//!
//! cgroupfs attributes take a value in a single `write(2)`; a second write is a second setting. Nothing here creates
//! files, so a controller that is not there shows as ENOENT and never as a plain file.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::failure::{self, Result, errno};

/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`: a v1 hierarchy.
const CGROUP_V1_MAGIC: u64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP_V2_MAGIC: u64 = 0x6367_7270;

/// Whether a cgroup filesystem is at a path.
pub(super) fn is_hierarchy(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| is_cgroup(about.f_type))
}

/// Whether a filesystem's number in statfs(2) is one of cgroups.
fn is_cgroup(magic: rustix::fs::FsWord) -> bool {
    matches!(u64::try_from(magic), Ok(CGROUP_V1_MAGIC | CGROUP_V2_MAGIC))
}

/// Attribute files are at most a few pages; `memory.numa_stat` and `io.stat` of big machines are the largest.
const FILE_LIMIT: usize = 1 << 20;

/// A cgroup's directory. The path is for messages only; all access goes through the descriptor.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the mount point of a hierarchy and checks that a cgroup filesystem is really mounted there.
    ///
    /// # Errors
    /// The path cannot be opened, or something else is mounted over it.
    pub(super) fn open_mount(path: &Path) -> Result<Self> {
        Self::open_unverified(path)?.verified()
    }

    /// Opens a cgroup some levels below the mount point of a hierarchy, without links on the way, and checks that it is one.
    pub(super) fn open_below(mount: &Path, relative: &Path) -> Result<Self> {
        if relative.as_os_str().is_empty() {
            return Self::open_mount(mount);
        }
        let path = mount.join(relative);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(|source| failure::file("open cgroup", &path, source))?;
        Self { fd, path }.verified()
    }

    fn verified(self) -> Result<Self> {
        let magic = rustix::fs::fstatfs(&self.fd)
            .map_err(|source| failure::file("stat filesystem of", &self.path, source))?
            .f_type;
        if is_cgroup(magic) {
            return Ok(self);
        }
        Err(failure::file("use as cgroup hierarchy", &self.path, Errno::NODEV))
    }

    /// Opens any directory: for tests on recorded trees and for [`Directory::open_mount`].
    pub(super) fn open_unverified(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|source| failure::file("open", path, source))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a child cgroup.
    pub(super) fn child(&self, name: &OsStr) -> Result<Self> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|source| failure::file("open cgroup", &path, source))?;
        Ok(Self { fd, path })
    }

    /// Makes a child cgroup, or opens the one that is there. The flag tells whether it is new.
    pub(super) fn make_child(&self, name: &OsStr) -> Result<(Self, bool)> {
        let mode = Mode::from_raw_mode(0o755);
        let new = match rustix::fs::mkdirat(&self.fd, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(source) => {
                return Err(failure::file("create cgroup", &self.path.join(name), source));
            }
        };
        match self.child(name) {
            Ok(child) => Ok((child, new)),
            Err(error) => {
                if new {
                    // Nobody but the caller knows of it, who learns nothing of it by an error.
                    let _first_error_counts = self.remove_child(name);
                }
                Err(error)
            }
        }
    }

    /// Removes a child cgroup, which must have neither processes nor children.
    pub(super) fn remove_child(&self, name: &OsStr) -> Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
            .map_err(|source| failure::file("remove cgroup", &self.path.join(name), source))
    }

    /// Names of the child cgroups.
    pub(super) fn children(&self) -> Result<Vec<std::ffi::OsString>> {
        let failed = |source| failure::file("list cgroup", &self.path, source);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Whether the attribute exists here: the way to ask for a kernel feature.
    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::statat(&self.fd, file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Opens an attribute; `flags` choose reading or writing.
    pub(super) fn open(&self, file: &str, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        rustix::fs::openat(&self.fd, file, flags, Mode::empty())
            .map_err(|source| failure::file("open", &self.path.join(file), source))
    }

    /// Writes one value to an attribute.
    ///
    /// # Errors
    /// Names the file and the value; the source is the kernel's answer.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        let failed = |source: Errno| failure::write(&self.path.join(file), value, source);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, file, flags, Mode::empty()).map_err(failed)?;
        loop {
            match rustix::io::write(&fd, value.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Writes a value where the kernel has the attribute. The flag tells whether it was there.
    pub(super) fn write_if_present(&self, file: &str, value: &str) -> Result<bool> {
        match self.write(file, value) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads an attribute whole.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let fd = self.open(file, OFlags::RDONLY)?;
        let failed = |source: Errno| failure::file("read", &self.path.join(file), source);
        let mut text = Vec::new();
        let mut chunk = [0_u8; 4096];
        loop {
            match rustix::io::read(&fd, &mut chunk) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&chunk[..count]),
                Err(Errno::INTR) => {}
                Err(source) => return Err(failed(source)),
            }
            if text.len() > FILE_LIMIT {
                return Err(failed(Errno::FBIG));
            }
        }
        String::from_utf8(text).map_err(|_| failed(Errno::ILSEQ))
    }

    /// Reads an attribute that this kernel or hierarchy may lack, or that it may refuse to show.
    ///
    /// EOPNOTSUPP is what the kernel answers for pressure files when PSI is compiled in but off.
    pub(super) fn read_optional(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) => match errno(&error) {
                Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Reads a single number; `max` is `u64::MAX`, and a file that is missing or says otherwise is `None`.
    pub(super) fn read_number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.read_optional(file)?.and_then(|text| parse_number(text.trim())))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A cgroup number: decimal, or `max` for no limit. v1's `-1` does not occur in files that are read back.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// The value of a `key value` line.
pub(super) fn keyed_number(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| parse_number(value.trim()))
}
