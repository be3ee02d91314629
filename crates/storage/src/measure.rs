//! What the storage takes on disk, by what it is of.

use std::collections::HashSet;
use std::path::Path;

use brig_linux::path::{Root, file_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::error::{Attempt, Result};
use crate::snapshot::SnapshotKey;
use crate::store::Storage;

/// Bytes on disk: allocated blocks, directories included, each file once. What vanishes meanwhile does not count, nor what
/// is mounted there from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// Complete snapshots, their records included.
    pub snapshots: Vec<(SnapshotKey, u64)>,
    /// Volumes by name, their records included.
    pub volumes: Vec<(String, u64)>,
    /// Snapshots that are being prepared, or removed but not deleted yet.
    pub passing: u64,
    /// The directories that hold them, and the lock.
    pub other: u64,
}

impl Storage {
    /// Measures everything, without keeping anybody from changing it.
    ///
    /// # Errors
    /// The system's, where the storage's own directories cannot be read.
    pub fn measure(&self) -> Result<Measured> {
        let attempt = || "measure the storage".to_owned();
        let root = Root::open(self.path()).attempt(attempt)?;
        let mut measured = Measured::default();
        let snapshots = self.snapshots().numbers();
        for top in root.read_dir("").attempt(attempt)? {
            let name = top.name.to_string_lossy().into_owned();
            if !matches!(name.as_str(), "snapshots" | "volumes") {
                measured.other += tree(&root, Path::new(&name));
                continue;
            }
            measured.other += own(&root, Path::new(&name));
            for entry in root.read_dir(&name).attempt(attempt)? {
                let bytes = tree(&root, &Path::new(&name).join(&entry.name));
                let object = entry.name.to_string_lossy().into_owned();
                let key = object.parse().ok().and_then(|number: u64| snapshots.get(&number));
                match (name.as_str(), key) {
                    ("volumes", _) => measured.volumes.push((object, bytes)),
                    (_, Some(key)) => measured.snapshots.push((key.clone(), bytes)),
                    _ => measured.passing += bytes,
                }
            }
        }
        measured.other += own(&root, Path::new(""));
        Ok(measured)
    }
}

/// One file or directory by itself.
fn own(root: &Root, path: &Path) -> u64 {
    let stat = root.resolve_nofollow(path).map(|fd| rustix::fs::fstat(&fd));
    stat.map_or(0, |stat| stat.map_or(0, |stat| allocated(stat.st_blocks)))
}

/// Bytes of the blocks that a file has.
pub(crate) fn allocated(blocks: i64) -> u64 {
    u64::try_from(blocks).unwrap_or(0).saturating_mul(512)
}

/// A file, or a directory with all in it that is on the same filesystem.
fn tree(root: &Root, path: &Path) -> u64 {
    let Ok(Ok(top)) = root.resolve_nofollow(path).map(|fd| rustix::fs::fstat(&fd)) else {
        return 0;
    };
    let mut bytes = allocated(top.st_blocks);
    if file_type(&top) != FileType::Directory {
        return bytes;
    }
    let mut linked = HashSet::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = root.open_beneath(&path, flags, Mode::empty());
        let (Ok(directory), Ok(entries)) = (opened, root.read_dir(&path)) else { continue };
        for entry in entries {
            let stat = rustix::fs::statat(&directory, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
            let Ok(stat) = stat else { continue };
            if stat.st_dev != top.st_dev {
                continue;
            }
            let is_directory = file_type(&stat) == FileType::Directory;
            if is_directory || stat.st_nlink == 1 || linked.insert(stat.st_ino) {
                bytes = bytes.saturating_add(allocated(stat.st_blocks));
            }
            if is_directory {
                pending.push(path.join(&entry.name));
            }
        }
    }
    bytes
}
