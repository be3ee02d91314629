//! Mount targets beneath an untrusted root, found or made without allocating.
//!
//! The kernel resolves a target in one step with `openat2(RESOLVE_IN_ROOT)`. Where something is missing, this module
//! walks: the path so far is held as text without links, and each step opens it again beneath the root, so that
//! whatever an attacker swaps in between, no step can leave the root.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::protection::{Protection, on};

const PATH_MAX: usize = 4096;
/// path_resolution(7)
const LINKS_MAX: usize = 40;
/// openat2(2) answers EAGAIN while renames race with it.
const ATTEMPTS: usize = 128;

/// What to make when the target is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Directory,
    File,
}

/// Opens `path` beneath `root` as `O_PATH`.
pub(crate) fn find(root: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<OwnedFd> {
    open(root, path, OFlags::PATH, ResolveFlags::empty())
}

/// Opens `path` beneath `root` with `flags`, following links inside the root and no magic links.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    let resolve = match on(Protection::RootConfinement) {
        true => resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        false => ResolveFlags::empty(),
    };
    for _ in 0..ATTEMPTS {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// As [`find`], making what is missing: directories with mode 0755, a file with 0644.
pub(crate) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &CStr,
    missing: Missing,
) -> rustix::io::Result<OwnedFd> {
    match find(root, path) {
        Err(Errno::NOENT) => {
            if missing == Missing::Directory
                && let Some(made) = make_last(root, path)?
            {
                return Ok(made);
            }
            let resolved = walk(root, path, missing)?;
            open(root, resolved.as_c_str()?, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
        }
        other => other,
    }
}

/// Makes the directory where only its last name is missing, which is most often so; `None` where more is.
#[inline(never)]
fn make_last(root: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    let bytes = path.to_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (mut directory, mut name) = (Text::new(), Text::new());
    directory.push(&bytes[..start])?;
    name.push(&bytes[start..])?;
    let Ok(parent) = find(root, directory.as_c_str()?) else { return Ok(None) };
    let name = name.as_c_str()?;
    if rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).is_err() {
        return Ok(None);
    }
    // Refused if it is a link by now.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&parent, name, flags, Mode::empty()).ok())
}

/// As [`find_or_make`], except that a link in the last place is the target itself.
pub(crate) fn find_or_make_nofollow(
    root: BorrowedFd<'_>,
    path: &CStr,
    missing: Missing,
) -> rustix::io::Result<OwnedFd> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let mut name = Text::new();
    name.push(&bytes[start..end])?;
    let mut directory = Text::new();
    directory.push(&bytes[..start])?;
    let parent = find_or_make(root, directory.as_c_str()?, Missing::Directory)?;
    let name = name.as_c_str()?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&parent, name, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            make(parent.as_fd(), name, missing, true)?;
            open()
        }
        other => other,
    }
}

/// A path held in a fixed buffer.
struct Text {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; PATH_MAX], length: 0 }
    }

    fn as_c_str(&self) -> rustix::io::Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::NAMETOOLONG)
    }

    fn push(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        let separator = usize::from(self.length > 0);
        let end = self.length + separator + name.len();
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if separator == 1 {
            self.bytes[self.length] = b'/';
        }
        self.bytes[self.length + separator..end].copy_from_slice(name);
        self.length = end;
        Ok(())
    }

    fn pop(&mut self) {
        let end = self.bytes[..self.length].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.bytes[end..self.length].fill(0);
        self.length = end;
    }

    fn clear(&mut self) {
        self.bytes[..self.length].fill(0);
        self.length = 0;
    }

    /// Takes the first name off.
    fn shift<'a>(&mut self, name: &'a mut [u8; PATH_MAX]) -> Option<&'a [u8]> {
        let start = self.bytes[..self.length].iter().position(|byte| *byte != b'/')?;
        let rest = &self.bytes[start..self.length];
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        name[..length].copy_from_slice(&rest[..length]);
        self.bytes.copy_within(start + length..self.length, 0);
        let left = self.length - start - length;
        self.bytes[left..self.length].fill(0);
        self.length = left;
        Some(&name[..length])
    }

    /// Puts a link's target before what is left.
    fn prepend(&mut self, target: &[u8]) -> rustix::io::Result<()> {
        let end = target.len() + 1 + self.length;
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes.copy_within(0..self.length, target.len() + 1);
        self.bytes[..target.len()].copy_from_slice(target);
        self.bytes[target.len()] = b'/';
        self.length = end;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.bytes[..self.length].iter().all(|byte| *byte == b'/')
    }
}

// Not as a part of its caller, which needs its buffers only where something is missing.
#[inline(never)]
fn walk(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> rustix::io::Result<Text> {
    let mut rest = Text::new();
    rest.push(path.to_bytes())?;
    let mut resolved = Text::new();
    let mut buffer = [0; PATH_MAX];
    let mut links = 0;
    while let Some(name) = rest.shift(&mut buffer) {
        match name {
            b"." => continue,
            b".." => {
                resolved.pop();
                continue;
            }
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = open(root, resolved.as_c_str()?, flags, ResolveFlags::NO_SYMLINKS)?;
        let mut name_text = Text::new();
        name_text.push(name)?;
        let name_text = name_text.as_c_str()?;
        let mut link = [0_u8; PATH_MAX];
        match rustix::fs::readlinkat_raw(&parent, name_text, &mut link[..]) {
            Ok(length) => {
                let target = &link[..length];
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                if target.first() == Some(&b'/') {
                    resolved.clear();
                }
                rest.prepend(target)?;
                continue;
            }
            // It is there and no link.
            Err(Errno::INVAL) => {}
            Err(Errno::NOENT) => make(parent.as_fd(), name_text, missing, rest.is_done())?,
            Err(errno) => return Err(errno),
        }
        resolved.push(name)?;
    }
    Ok(resolved)
}

fn make(
    parent: BorrowedFd<'_>,
    name: &CStr,
    missing: Missing,
    last: bool,
) -> rustix::io::Result<()> {
    let made = if last && missing == Missing::File {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    };
    match made {
        // A neighbour was faster; the next open tells what it is.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(directory.path(), OFlags::PATH, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let (directory, root) = root();
        find_or_make(root.as_fd(), c"a/b/c", Missing::Directory).unwrap();
        assert!(directory.path().join("a/b/c").is_dir());
        find_or_make(root.as_fd(), c"a//b/./x/../file", Missing::File).unwrap();
        assert!(directory.path().join("a/b/file").is_file());
    }

    #[test]
    fn links_stay_inside_and_dangling_ones_are_completed() {
        let (directory, root) = root();
        symlink("/run/resolve/stub", directory.path().join("absolute")).unwrap();
        symlink("../../../../../up/stub", directory.path().join("relative")).unwrap();
        find_or_make(root.as_fd(), c"absolute", Missing::File).unwrap();
        find_or_make(root.as_fd(), c"relative", Missing::File).unwrap();
        assert!(directory.path().join("run/resolve/stub").is_file());
        assert!(directory.path().join("up/stub").is_file());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (directory, root) = root();
        symlink("b/x", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        let error = find_or_make(root.as_fd(), c"a", Missing::File).unwrap_err();
        assert_eq!(error, Errno::LOOP);
    }

    #[test]
    fn too_long_paths_are_refused() {
        let (_directory, root) = root();
        let long = std::ffi::CString::new(vec![b'a'; 5000]).unwrap();
        assert_eq!(find(root.as_fd(), &long).unwrap_err(), Errno::NAMETOOLONG);
    }
}
