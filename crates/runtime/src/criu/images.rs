//! The directory that CRIU writes its images to or reads them from, and what is looked at before it may.
//!
//! CRIU opens what it finds there as root and follows links: one in an image that came from elsewhere would read a file
//! of the host into the memory of a container, or write a log over one. So nobody else may write to the directory, and
//! nothing lies in it but ordinary files, and the link to the images of an earlier dump, which is held to the same.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::rpc::{Fields, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::security::seccomp::Program;

/// The standard descriptors of a saved container, as runc names them.
const DESCRIPTORS: &str = "descriptors.json";
/// The link to the images of the dump before.
const PARENT: &str = "parent";
/// How many earlier dumps may stand behind one.
const PARENTS_MAX: usize = 64;
/// The filters of all processes.
const SECCOMP: &str = "seccomp.img";
/// The most that is read of it; a filter has at most 32 KiB, and processes share theirs.
const SECCOMP_MAX: u64 = 16 << 20;
/// The last part of a log, in bytes.
const LOG_TAIL: u64 = 64 << 10;
/// How many lines of it are told.
const LOG_LINES: usize = 4;

/// Opens a directory that nobody but the caller may write to.
///
/// # Errors
/// The system's; `Denied` when others may write to it.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let attempt = |errno| Error::system(format!("open directory {}", path.display()), errno);
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(attempt)?;
    let stat = rustix::fs::fstat(&directory).map_err(attempt)?;
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    if own && stat.st_mode & 0o022 == 0 {
        return Ok(directory);
    }
    let text = format!("directory {} for checkpoints can be changed by others", path.display());
    Err(Error::new(ErrorKind::Denied, text)
        .with_advice("it must be root's, with mode 0700 or 0755"))
}

/// As [`open`], made if it is missing; whether it was empty.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_or_make(path: &Path) -> Result<(OwnedFd, bool)> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|source| Error::system(format!("make directory {}", path.display()), source))?;
    let directory = open(path)?;
    let empty = names(directory.as_fd())?.is_empty();
    Ok((directory, empty))
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<brig_linux::path::DirEntry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, c".", flags, Mode::empty())
        .and_then(brig_linux::path::entries)
        .map_err(|errno| Error::system("read the directory of a checkpoint", errno))
}

/// Refuses what CRIU would follow or wait for.
///
/// # Errors
/// `Denied` with its name.
pub(crate) fn check(directory: BorrowedFd<'_>) -> Result<()> {
    let mut parent = None;
    for _ in 0..PARENTS_MAX {
        let current = parent.as_ref().map_or(directory, OwnedFd::as_fd);
        let mut next = None;
        for entry in names(current)? {
            let stat = rustix::fs::statat(current, &entry.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| Error::system("look through a checkpoint", errno))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_parent = entry.name == PARENT && kind == FileType::Symlink;
            // The directory of an earlier dump may lie in that of the next one.
            if !matches!(kind, FileType::RegularFile | FileType::Directory) && !is_parent {
                let name = entry.name.display();
                let text = format!("checkpoint has {name:?}, which is no ordinary file");
                return Err(Error::new(ErrorKind::Denied, text)
                    .with_advice("CRIU would follow it to other files of this machine"));
            }
            if is_parent {
                next = Some(open_parent(current)?);
            }
        }
        match next {
            Some(next) => parent = Some(next),
            None => return Ok(()),
        }
    }
    Err(Error::new(ErrorKind::InvalidInput, "checkpoint has too many parents"))
}

fn open_parent(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, PARENT, flags, Mode::empty())
        .map_err(|errno| Error::system("open the parent of a checkpoint", errno))
}

/// Makes way for files that CRIU is about to write, which follows links of their names.
pub(crate) fn make_way(directory: BorrowedFd<'_>, names: &[&str]) -> Result<()> {
    for name in names {
        match rustix::fs::unlinkat(directory, *name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::system(format!("remove an old {name}"), errno)),
        }
    }
    Ok(())
}

/// Removes the images of a dump that failed, but not its log.
pub(crate) fn clear(directory: BorrowedFd<'_>) {
    for entry in names(directory).unwrap_or_default() {
        let name = entry.name.to_string_lossy();
        if name.ends_with(".img") || name == DESCRIPTORS || name == PARENT {
            // The failure of the dump is the one to report.
            let _ = rustix::fs::unlinkat(directory, &entry.name, AtFlags::empty());
        }
    }
}

fn read(directory: BorrowedFd<'_>, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let attempt = || format!("read {name} of the checkpoint");
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::system(attempt(), errno)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::system(attempt(), source))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{}: too large", attempt())));
    }
    Ok(Some(bytes))
}

/// Notes what the standard descriptors of a saved process were.
pub(crate) fn write_descriptors(directory: BorrowedFd<'_>, names: &[String]) -> Result<()> {
    let failed = |source| Error::system(format!("write {DESCRIPTORS}"), source);
    make_way(directory, &[DESCRIPTORS])?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed(errno.into()))?;
    let text = serde_json::Value::from(names).to_string();
    std::io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes()).map_err(failed)
}

/// What the standard descriptors of a saved process were, those that can be replaced: `pipe:[INODE]` or
/// `file[MOUNT:INODE]`, which is what CRIU calls them.
pub(crate) fn descriptors(directory: BorrowedFd<'_>) -> Result<[Option<String>; 3]> {
    let Some(bytes) = read(directory, DESCRIPTORS, 64 << 10)? else {
        let text = format!("checkpoint has no {DESCRIPTORS}");
        return Err(Error::new(ErrorKind::NotFound, text)
            .with_advice("the directory holds no finished checkpoint of a container"));
    };
    let names: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Integrity, format!("parse {DESCRIPTORS}")).with_source(error)
    })?;
    let names = names.as_array().into_iter().flatten();
    let known = |name: &&str| {
        let inside = |start: &str| {
            let inside = name.strip_prefix(start)?.strip_suffix(']')?;
            Some(inside.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'))
        };
        inside("pipe:[").or_else(|| inside("file[")) == Some(true)
    };
    let mut names = names.map(|name| name.as_str().unwrap_or_default());
    Ok([(); 3].map(|()| names.next().filter(known).map(ToOwned::to_owned)))
}

/// Checks that every chain of filters in the images ends in the one of the configuration: a restored process that has a
/// filter has that one then, and perhaps more of its own.
///
/// # Errors
/// `Denied`.
pub(crate) fn check_seccomp(directory: BorrowedFd<'_>, program: &Program) -> Result<()> {
    let refused = || {
        Error::new(ErrorKind::Denied, "checkpoint has another seccomp filter than linux.seccomp")
            .with_advice("restore it with the configuration that it was saved with")
    };
    let bytes = read(directory, SECCOMP, SECCOMP_MAX)?.ok_or_else(refused)?;
    // Two magic numbers, a length, and one message.
    let message = bytes.get(12..).ok_or_else(refused)?;
    let mut expected = Vec::new();
    for one in program.instructions() {
        expected.extend_from_slice(&one.code.to_ne_bytes());
        expected.extend_from_slice(&[one.jump_true, one.jump_false]);
        expected.extend_from_slice(&one.constant.to_ne_bytes());
    }
    for field in Fields(message) {
        let (1, Value::Bytes(filter)) = field? else { continue };
        let (mut code, mut has_next) = (None, false);
        for field in Fields(filter) {
            match field? {
                (1, Value::Bytes(bytes)) => code = Some(bytes),
                (2, Value::Number(_)) => has_next = true,
                _ => {}
            }
        }
        if !has_next && code != Some(expected.as_slice()) {
            return Err(refused());
        }
    }
    Ok(())
}

/// Whether a message of CRIU may be a reason: what is missing on every machine without the right to raise limits is none.
fn is_telling(message: &str) -> bool {
    !message.contains("Can't setup RLIMIT_NOFILE")
}

/// The last errors in a log, or else its last lines.
pub(crate) fn log_tail(directory: BorrowedFd<'_>, name: &str) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) else {
        return String::new();
    };
    let mut file = std::fs::File::from(file);
    let size = file.metadata().map_or(0, |about| about.len());
    let mut bytes = Vec::new();
    let start = SeekFrom::Start(size.saturating_sub(LOG_TAIL));
    if file.seek(start).and_then(|_| file.take(LOG_TAIL).read_to_end(&mut bytes)).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let telling = |line: &&&str| line.contains("Error (") && is_telling(line);
    let errors: Vec<&str> = lines.iter().filter(telling).copied().collect();
    let chosen = if errors.is_empty() { lines } else { errors };
    chosen[chosen.len().saturating_sub(LOG_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path()).unwrap();
        (place, directory)
    }

    #[test]
    fn links_and_queues_are_refused_by_name() {
        let (place, directory) = directory();
        std::fs::write(place.path().join("core-1.img"), "x").unwrap();
        check(directory.as_fd()).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", place.path().join("pages-1.img")).unwrap();
        let error = check(directory.as_fd()).unwrap_err();
        assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("pages-1.img"));
    }

    #[test]
    fn parents_are_looked_through_as_well_and_end() {
        let place = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| place.path().join(name));
        std::fs::create_dir(&first).unwrap();
        std::fs::create_dir(&second).unwrap();
        std::os::unix::fs::symlink("../first", second.join("parent")).unwrap();
        let directory = open(&second).unwrap();
        check(directory.as_fd()).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", first.join("pages-1.img")).unwrap();
        assert_eq!(check(directory.as_fd()).unwrap_err().kind(), ErrorKind::Denied);
        std::fs::remove_file(first.join("pages-1.img")).unwrap();
        std::os::unix::fs::symlink("../second", first.join("parent")).unwrap();
        assert_eq!(check(directory.as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn only_names_that_criu_gives_are_taken_for_descriptors() {
        let (_place, directory) = directory();
        assert_eq!(descriptors(directory.as_fd()).unwrap_err().kind(), ErrorKind::NotFound);
        let names = ["/dev/null", "pipe:[7]", "extRootNetNS"].map(str::to_owned);
        write_descriptors(directory.as_fd(), &names).unwrap();
        let found = descriptors(directory.as_fd()).unwrap();
        assert_eq!(found, [None, Some("pipe:[7]".to_owned()), None]);
    }

    #[test]
    fn others_may_not_write_where_images_lie() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(place.path(), mode).unwrap();
        assert_eq!(open(place.path()).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn a_log_tells_its_errors() {
        let (place, directory) = directory();
        assert_eq!(log_tail(directory.as_fd(), "dump.log"), "");
        let text = "(1) Info\n(2) Error (a.c:1): this\n(3) more\n";
        std::fs::write(place.path().join("dump.log"), text).unwrap();
        assert_eq!(log_tail(directory.as_fd(), "dump.log"), "(2) Error (a.c:1): this");
        std::fs::write(place.path().join("dump.log"), "one\ntwo\n").unwrap();
        assert_eq!(log_tail(directory.as_fd(), "dump.log"), "one; two");
    }
}
