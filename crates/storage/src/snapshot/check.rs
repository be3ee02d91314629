//! Whether the snapshots on disk are those of the index, and have their files.

use std::collections::HashMap;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::image::IMAGE;
use super::record::Format;
use super::{NEW, REMOVING, SnapshotKey, SnapshotKind, Snapshots, Stored};
use crate::error::{Attempt, ErrorKind, Result};

/// Something about the snapshots that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotFault {
    /// A complete snapshot whose files, or the image they are in, are gone.
    WithoutFiles {
        /// Which one.
        key: SnapshotKey,
        /// A layer, which can be made again, or a container, which cannot.
        kind: SnapshotKind,
    },
    /// A directory whose record cannot be read: what it was nobody knows.
    Unreadable(PathBuf),
    /// A file that the storage never makes.
    Unknown(PathBuf),
}

impl Snapshots {
    /// Compares the directory with the index.
    ///
    /// # Errors
    /// The system's.
    pub fn check(&self) -> Result<Vec<SnapshotFault>> {
        let mut faults = Vec::new();
        let entries = self.shared.root.read_dir("").attempt(|| "list the snapshots".into())?;
        // After the list: what is made or removed meanwhile is in neither or in both.
        let known: Vec<Stored> = self.index().complete.values().cloned().collect();
        for entry in entries {
            let name = entry.name.to_string_lossy().into_owned();
            let path = self.shared.path.join(&name);
            if name.starts_with(NEW) || name.starts_with(REMOVING) {
                continue;
            }
            match name.parse::<u64>() {
                Err(_) => faults.push(SnapshotFault::Unknown(path)),
                Ok(number) if known.iter().any(|stored| stored.number == number) => {}
                // Removed or completed between the two looks.
                Ok(_) if self.shared.root.resolve(&name).is_err() => {}
                Ok(number) if self.index().complete.values().any(|s| s.number == number) => {}
                Ok(_) => faults.push(SnapshotFault::Unreadable(path)),
            }
        }
        for stored in known {
            if !self.has_files(&stored)? && self.exists(&stored.record.key) {
                let record = stored.record;
                faults.push(SnapshotFault::WithoutFiles { key: record.key, kind: record.kind });
            }
        }
        Ok(faults)
    }

    /// The complete snapshots by the numbers that are their directories.
    pub(crate) fn numbers(&self) -> HashMap<u64, SnapshotKey> {
        let index = self.index();
        index.complete.values().map(|stored| (stored.number, stored.record.key.clone())).collect()
    }

    fn has_files(&self, stored: &Stored) -> Result<bool> {
        let (name, wanted) = match stored.record.format {
            Format::Directory => ("fs", FileType::Directory),
            Format::Erofs => (IMAGE, FileType::RegularFile),
        };
        let place = format!("{}/{name}", stored.number);
        match self.shared.root.resolve(&place) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).attempt(|| format!("look at {place}"))?;
                Ok(brig_linux::path::file_type(&stat) == wanted)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).attempt(|| format!("look at {place}")),
        }
    }

    /// Puts aside a layer although others stand on it: it is to be made again at once, under the same key. Containers
    /// that run go on with what they have mounted.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn discard_layer(&self, key: &SnapshotKey) -> Result<()> {
        let stored = self.index().complete.remove(key).ok_or_else(|| super::unknown(key))?;
        self.put_aside(key, stored)
    }
}
