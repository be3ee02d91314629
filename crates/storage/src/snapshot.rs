//! Snapshots: the layers of images and the writable layers of containers, on overlayfs.
//!
//! ```text
//!                prepare_layer                 commit
//!   (nothing) ─────────────────▶ LayerWriter ─────────▶ layer ───┐ parent of
//!                                    │ drop                      ▼
//!                                    └──▶ (nothing)       layers and containers
//!                prepare_container
//!   (nothing) ──────────────────────────────────────▶ container ──mounts──▶ overlay
//!
//!   layer or container without children ──remove──▶ renamed away ──sweep──▶ (nothing)
//! ```
//!
//! ```text
//! snapshots/
//! ├── 17/               a number: overlayfs' option string must fit one page
//! │   ├── record.json   key, parent, kind, usage
//! │   ├── fs/           the layer's files, or a container's upper directory
//! │   └── work/         overlayfs' work directory (containers)
//! ├── new-18/           being prepared; whatever crashes leaves it under this name, which `open` removes
//! └── removing-9/       removed; the next `sweep` deletes it
//! ```
//!
//! A name without prefix is complete: it got there by one rename, after its files were synced (`syncfs`) and its record
//! written. Everything else is removed at the next open, so no crash leaves a half layer that looks whole.
//!
//! The index of keys is in memory, under one lock that is never held while files are read or written. The lock file of
//! the storage root keeps other processes out.

mod record;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_linux::path::{Root, file_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::diff::{self, Change};
use crate::durable::{private_directory, read_record, sync_directory, write_record};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::layer::lower::LowerLayers;

pub use record::{Format, SnapshotKey, SnapshotKind};
pub use writer::{ApplyOptions, LayerWriter};

use record::Record;

const NEW: &str = "new-";
const REMOVING: &str = "removing-";

/// The snapshots of one storage root. Cloning gives another handle on the same.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Root,
    path: PathBuf,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    complete: HashMap<SnapshotKey, Stored>,
    /// Keys in preparation, with their parents, so that neither is taken or removed meanwhile.
    preparing: HashMap<SnapshotKey, Option<SnapshotKey>>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    number: u64,
    record: Record,
}

/// A mount for the container's runtime, in containerd's shape: the root filesystem is the result of all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub fstype: String,
    /// The directory of a bind; `overlay` otherwise.
    pub source: PathBuf,
    /// Options as mount(8) spells them.
    pub options: Vec<String>,
}

/// What a snapshot takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes: for a layer the sizes of its files, for a container the allocated blocks.
    pub bytes: u64,
    /// Files, directories and all else.
    pub inodes: u64,
}

/// A snapshot, as [`Snapshots::list`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its key.
    pub key: SnapshotKey,
    /// The layer it stands on.
    pub parent: Option<SnapshotKey>,
    /// Layer or container.
    pub kind: SnapshotKind,
    /// For layers: what was written. Of containers see [`Snapshots::usage`].
    pub usage: Option<Usage>,
}

impl Snapshots {
    pub(crate) fn open(storage: &Root, storage_path: &Path) -> Result<Self> {
        let root = private_directory(storage, "snapshots")?;
        let mut index = Index::default();
        let entries = root.read_dir("").attempt(|| "list the snapshots".into())?;
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if let Some(number) = name.strip_prefix(NEW).or_else(|| name.strip_prefix(REMOVING)) {
                index.next = index.next.max(number.parse().map_or(0, |number: u64| number + 1));
                if name.starts_with(NEW) {
                    let removing = format!("{REMOVING}{number}");
                    root.rename(&entry.name, removing, RenameFlags::empty())
                        .attempt(|| format!("discard unfinished snapshot {name}"))?;
                }
                continue;
            }
            let Ok(number) = name.parse::<u64>() else { continue };
            index.next = index.next.max(number + 1);
            let record: Record = match read_record(&root, &Path::new(&*name).join("record.json")) {
                Ok(record) => record,
                // Never written by us, since the name is given after the record: left for a human to look at.
                Err(error) => {
                    tracing::error!(snapshot = %name, ?error, "snapshot has no readable record");
                    continue;
                }
            };
            index.complete.insert(record.key.clone(), Stored { number, record });
        }
        let path = storage_path.join("snapshots");
        Ok(Self { shared: Arc::new(Shared { root, path, index: Mutex::new(index) }) })
    }

    /// Starts a layer on top of `parent`. Nothing is there under the key until [`LayerWriter::commit`].
    ///
    /// # Errors
    /// `AlreadyExists` for a complete key, `Conflict` for one in preparation, `NotFound` for an unknown parent.
    pub fn prepare_layer(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
    ) -> Result<LayerWriter> {
        let (number, lower) = self.reserve(key, parent)?;
        let record = Record::new(key, parent, SnapshotKind::Layer);
        match self.create(number, &record, lower.first()) {
            Ok(directory) => LayerWriter::new(self.clone(), number, record, directory, &lower),
            Err(error) => {
                self.abandon(key, number);
                Err(error)
            }
        }
    }

    /// Creates the writable layer of a container.
    ///
    /// # Errors
    /// As [`Snapshots::prepare_layer`].
    pub fn prepare_container(&self, key: &SnapshotKey, parent: Option<&SnapshotKey>) -> Result<()> {
        let (number, lower) = self.reserve(key, parent)?;
        let record = Record::new(key, parent, SnapshotKind::Container);
        let made = self.create(number, &record, lower.first()).and_then(|directory| {
            directory
                .create_dir("work", Mode::from_raw_mode(0o700))
                .attempt(|| "create the work directory".into())?;
            write_record(&directory, "record.json", &record)?;
            self.complete(number, record)
        });
        made.inspect_err(|_| self.abandon(key, number))
            .attempt(|| format!("prepare container snapshot {key}"))
    }

    /// Whether a complete snapshot has this key.
    #[must_use]
    pub fn exists(&self, key: &SnapshotKey) -> bool {
        self.index().complete.contains_key(key)
    }

    /// All complete snapshots, in no particular order.
    #[must_use]
    pub fn list(&self) -> Vec<SnapshotInfo> {
        let index = self.index();
        let info = |stored: &Stored| SnapshotInfo {
            key: stored.record.key.clone(),
            parent: stored.record.parent.clone(),
            kind: stored.record.kind,
            usage: stored.record.usage,
        };
        index.complete.values().map(info).collect()
    }

    /// The mounts that make a container's root filesystem, writable.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a layer, which nobody may write: see [`Snapshots::view`].
    pub fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let stored = self.find(key)?;
        if stored.record.kind != SnapshotKind::Container {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("snapshot {key} is a layer and only to be viewed"),
            ));
        }
        let lower = self.lower_paths(stored.record.parent.as_ref())?;
        if lower.is_empty() {
            let options = vec!["rbind".into(), "rw".into()];
            let source = self.directory(stored.number).join("fs");
            return Ok(vec![Mount { fstype: "bind".into(), source, options }]);
        }
        let directory = self.directory(stored.number);
        let options = vec![
            // All are off, whatever the kernel's defaults: the upper directory must hold whole files at their own
            // places, so that it can be compared and archived without overlayfs; and index would refuse a second
            // mount of the same upper directory after a crash.
            "index=off".into(),
            "metacopy=off".into(),
            "redirect_dir=off".into(),
            format!("workdir={}", directory.join("work").display()),
            format!("upperdir={}", directory.join("fs").display()),
            lower_option(&lower),
        ];
        Ok(vec![Mount { fstype: "overlay".into(), source: "overlay".into(), options }])
    }

    /// The mounts that show a snapshot, layer or container, read-only.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn view(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.find(key)?;
        let layers = self.lower_paths(Some(key))?;
        if let [source] = layers.as_slice() {
            let options = vec!["rbind".into(), "ro".into()];
            return Ok(vec![Mount { fstype: "bind".into(), source: source.clone(), options }]);
        }
        let options = vec!["ro".into(), "index=off".into(), lower_option(&layers)];
        Ok(vec![Mount { fstype: "overlay".into(), source: "overlay".into(), options }])
    }

    /// Removes a snapshot from the index and from its place. Its files are deleted by [`Snapshots::sweep`], which may
    /// run behind; a crash in between loses nothing, since the next sweep finds them.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while another snapshot stands on it.
    pub fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let stored = {
            let mut index = self.index();
            if !index.complete.contains_key(key) {
                return Err(unknown(key));
            }
            let child = index
                .complete
                .values()
                .find(|stored| stored.record.parent.as_ref() == Some(key))
                .map(|stored| stored.record.key.clone())
                .or_else(|| {
                    let mut preparing = index.preparing.iter();
                    preparing
                        .find(|(_, parent)| parent.as_ref() == Some(key))
                        .map(|(key, _)| key.clone())
                });
            if let Some(child) = child {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("remove snapshot {key}: {child} stands on it; remove that first"),
                ));
            }
            index.complete.remove(key).ok_or_else(|| unknown(key))?
        };
        let number = stored.number;
        let renamed = self
            .shared
            .root
            .rename(number.to_string(), format!("{REMOVING}{number}"), RenameFlags::empty())
            .attempt(|| format!("remove snapshot {key}"));
        if renamed.is_err() {
            self.index().complete.insert(key.clone(), stored);
        }
        renamed?;
        sync_directory(&self.shared.root)
    }

    /// Deletes the files of removed snapshots; continues past failures and reports them all.
    ///
    /// # Errors
    /// The first failure, with the number of others.
    pub fn sweep(&self) -> Result<()> {
        let mut failures = Vec::new();
        for entry in self.shared.root.read_dir("").attempt(|| "list the snapshots".into())? {
            if entry.name.to_string_lossy().starts_with(REMOVING) {
                let removed = self.shared.root.remove_all(&entry.name);
                failures.extend(removed.attempt(|| "delete a removed snapshot".into()).err());
            }
        }
        let others = failures.len().saturating_sub(1);
        match failures.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(first.within(format!("sweep snapshots ({others} more failures)"))),
        }
    }

    /// What a snapshot takes. Known for layers; a container's files are counted, without holding any lock.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let stored = self.find(key)?;
        match stored.record.usage {
            Some(usage) => Ok(usage),
            None => {
                let upper = self.open_files(stored.number)?;
                let mut usage = Usage::default();
                count(&upper, Path::new(""), &mut usage)
                    .attempt(|| format!("count the files of snapshot {key}"))?;
                Ok(usage)
            }
        }
    }

    /// How a snapshot differs from its parent, as `docker diff` tells it, in the order of paths.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn changes(&self, key: &SnapshotKey) -> Result<Vec<Change>> {
        let (upper, lower) = self.layer_pair(key)?;
        diff::changes(&upper, &lower).attempt(|| format!("compare snapshot {key} with its parent"))
    }

    /// Writes the difference as a layer archive, with whiteouts. The same files always give the same bytes.
    ///
    /// # Errors
    /// As [`Snapshots::changes`], and the writer's.
    pub fn diff_tar(&self, key: &SnapshotKey, output: &mut impl std::io::Write) -> Result<()> {
        let (upper, lower) = self.layer_pair(key)?;
        diff::write_tar(&upper, &lower, output).attempt(|| format!("archive snapshot {key}"))
    }

    fn layer_pair(&self, key: &SnapshotKey) -> Result<(Root, LowerLayers)> {
        let stored = self.find(key)?;
        let lower = LowerLayers::open(&self.lower_paths(stored.record.parent.as_ref())?)?;
        Ok((self.open_files(stored.number)?, lower))
    }

    fn open_files(&self, number: u64) -> Result<Root> {
        self.shared
            .root
            .subroot(format!("{number}/fs"))
            .attempt(|| format!("open the files of snapshot {number}"))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is only changed by whole insertions and removals, so a panic elsewhere leaves it usable.
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &SnapshotKey) -> Result<Stored> {
        self.index().complete.get(key).cloned().ok_or_else(|| unknown(key))
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.shared.path.join(number.to_string())
    }

    /// The `fs` directories from a snapshot downwards, topmost first.
    fn lower_paths(&self, top: Option<&SnapshotKey>) -> Result<Vec<PathBuf>> {
        let index = self.index();
        self.chain(&index, top)
    }

    fn chain(&self, index: &Index, top: Option<&SnapshotKey>) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut next = top;
        while let Some(key) = next {
            let stored = index.complete.get(key).ok_or_else(|| unknown(key))?;
            if paths.len() > index.complete.len() {
                return Err(Error::integrity(format!("snapshot {key} is its own ancestor")));
            }
            paths.push(self.directory(stored.number).join("fs"));
            next = stored.record.parent.as_ref();
        }
        Ok(paths)
    }

    /// Takes a key and a number, and says what will be below.
    fn reserve(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
    ) -> Result<(u64, Vec<PathBuf>)> {
        let mut index = self.index();
        if index.complete.contains_key(key) {
            let problem = format!("snapshot {key} exists already");
            return Err(Error::new(ErrorKind::AlreadyExists, problem));
        }
        if index.preparing.contains_key(key) {
            let problem = format!("snapshot {key} is being prepared already");
            return Err(Error::new(ErrorKind::Conflict, problem));
        }
        if let Some(parent) = parent {
            let stored = index.complete.get(parent).ok_or_else(|| unknown(parent))?;
            if stored.record.kind != SnapshotKind::Layer {
                let problem = format!("snapshot {parent} is a container's and cannot be a parent");
                return Err(Error::new(ErrorKind::InvalidInput, problem));
            }
        }
        let lower = self.chain(&index, parent)?;
        let number = index.next;
        index.next += 1;
        index.preparing.insert(key.clone(), parent.cloned());
        Ok((number, lower))
    }

    /// Makes `new-<number>/` with its record and an empty `fs/` that looks like the parent's root.
    fn create(&self, number: u64, record: &Record, below: Option<&PathBuf>) -> Result<Root> {
        let name = format!("{NEW}{number}");
        let attempt = || format!("create snapshot directory {name}");
        self.shared.root.create_dir(&name, Mode::from_raw_mode(0o700)).attempt(attempt)?;
        let directory = self.shared.root.subroot(&name).attempt(attempt)?;
        let text = serde_json::to_vec(record).map_err(std::io::Error::from).attempt(attempt)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let intent = directory
            .open_beneath("record.json", flags, Mode::from_raw_mode(0o600))
            .attempt(attempt)?;
        std::io::Write::write_all(&mut std::fs::File::from(intent), &text).attempt(attempt)?;
        directory.create_dir("fs", Mode::from_raw_mode(0o755)).attempt(attempt)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let files = directory.open_beneath("fs", flags, Mode::empty()).attempt(attempt)?;
        rustix::fs::fchmod(&files, Mode::from_raw_mode(0o755)).attempt(attempt)?;
        if let Some(below) = below {
            // In overlayfs the uppermost directory gives the root its owner and mode.
            let below = Root::open(below).attempt(attempt)?;
            let stat = rustix::fs::fstat(&below).attempt(attempt)?;
            let copied = attributes::read(std::os::fd::AsFd::as_fd(&below), &stat)?;
            attributes::apply(std::os::fd::AsFd::as_fd(&files), &copied, FileType::Directory)?;
            attributes::set_modified(std::os::fd::AsFd::as_fd(&files), copied.modified)
                .attempt(attempt)?;
        }
        Ok(directory)
    }

    /// Gives a prepared directory its final name, durably.
    fn complete(&self, number: u64, record: Record) -> Result<()> {
        let attempt = || format!("complete snapshot {}", record.key);
        self.shared
            .root
            .rename(format!("{NEW}{number}"), number.to_string(), RenameFlags::NOREPLACE)
            .attempt(attempt)?;
        sync_directory(&self.shared.root).attempt(attempt)?;
        let mut index = self.index();
        index.preparing.remove(&record.key);
        index.complete.insert(record.key.clone(), Stored { number, record });
        Ok(())
    }

    /// Undoes a preparation. What cannot be deleted now is deleted at the next open.
    fn abandon(&self, key: &SnapshotKey, number: u64) {
        for name in [format!("{NEW}{number}"), number.to_string()] {
            if let Err(error) = self.shared.root.remove_all(&name) {
                tracing::warn!(%key, name, ?error, "unfinished snapshot is left for the next start");
            }
        }
        self.index().preparing.remove(key);
    }
}

fn unknown(key: &SnapshotKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("no snapshot {key}"))
}

/// Overlayfs separates layers by colons; our paths are escaped as it asks.
fn lower_option(layers: &[PathBuf]) -> String {
    let escaped: Vec<String> = layers
        .iter()
        .map(|path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:"))
        .collect();
    format!("lowerdir={}", escaped.join(":"))
}

fn count(root: &Root, path: &Path, usage: &mut Usage) -> brig_linux::Result<()> {
    let directory = root.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    for entry in root.read_dir(path)? {
        // What vanishes while we count does not count.
        let Ok(stat) = rustix::fs::statat(&directory, &entry.name, AtFlags::SYMLINK_NOFOLLOW)
        else {
            continue;
        };
        usage.inodes += 1;
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if file_type(&stat) == FileType::Directory {
            match count(root, &path.join(&entry.name), usage) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
