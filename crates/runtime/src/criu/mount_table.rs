//! What is mounted in a container, as the kernel tells it (`/proc/PID/mountinfo`, proc_pid_mountinfo(5)).

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::cgroup::hierarchy::unescape;
use crate::error::{Error, Result};

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    /// Where in its filesystem it starts.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// Of the mount alone.
    options: String,
    pub(crate) kind: String,
}

impl Entry {
    /// Whether it has an option, by its name.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|own| own == option)
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let id = fields.next()?.parse().ok()?;
        let root = unescape(fields.nth(2)?);
        let point = unescape(fields.next()?);
        let options = fields.next()?.to_owned();
        Some(Self { id, root, point, options, kind: filesystem.split(' ').next()?.to_owned() })
    }
}

/// The mounts of a process's namespace, in order.
///
/// # Errors
/// The system's.
pub(crate) fn of(pid: i32) -> Result<Vec<Entry>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| Error::system(format!("read {path}"), source))?;
    Ok(text.lines().filter_map(Entry::parse).collect())
}

/// Whether a mount point is one place, or below it.
pub(crate) fn is_below(point: &Path, place: &Path) -> bool {
    point.starts_with(place) && point.as_os_str().as_bytes().len() > place.as_os_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            r"36 35 98:0 /a\040b /mnt/x ro,noatime master:1 - ext4 /dev/root rw,errors=continue";
        let entry = Entry::parse(line).unwrap();
        assert_eq!((entry.id, entry.root.as_path()), (36, Path::new("/a b")));
        assert_eq!((entry.point.as_path(), entry.kind.as_str()), (Path::new("/mnt/x"), "ext4"));
        assert!(entry.has("ro") && !entry.has("rw") && !entry.has("errors=continue"));
        assert!(Entry::parse("36 35").is_none());
    }
}
