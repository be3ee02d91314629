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
//! │   ├── record.json   key, parent, kind, usage; `unsettled.json` where the files may not be on disk yet
//! │   ├── fs/           the layer's files, or a container's upper directory
//! │   ├── layer.erofs   instead, the image that is mounted at `fs/` (layers of that format)
//! │   └── work/         overlayfs' work directory (containers)
//! ├── new-18/           being prepared; whatever crashes leaves it under this name, which `open` removes
//! └── removing-9/       removed; the next `sweep` deletes it
//! ```
//!
//! A name without prefix is complete: it got there by one rename, after its files were synced (`syncfs`) and its record
//! written, or it says that they are not synced and is believed only until the machine stops (see [`Durability`]).
//! Everything else is removed at the next open, so no crash leaves a half layer that looks whole.
//!
//! Layers of one image are written at the same time: a layer may be prepared while its parent is, waits for it only
//! where its archive speaks of files below, and is committed after it.
//!
//! The index of keys is in memory, under one lock that is never held while files are read or written. The lock file of
//! the storage root keeps other processes out.

mod check;
mod image;
mod mounts;
mod record;
mod settle;
mod writer;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use brig_linux::path::{Root, file_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::diff::{self, Change};
use crate::durable::{sync_directory, write_record};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::layer::lower::LowerLayers;
use crate::measure::allocated;

pub use check::SnapshotFault;
pub(crate) use image::{check_support, is_mount_point};
pub use mounts::Mount;
pub use record::{Format, SnapshotKey, SnapshotKind};
pub use settle::Durability;
pub use writer::{ApplyOptions, LayerWriter};

use record::Record;
use settle::Unsettled;

const NEW: &str = "new-";
const REMOVING: &str = "removing-";
const RECORD: &str = "record.json";

/// The snapshots of one storage root. Cloning gives another handle on the same.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Root,
    path: PathBuf,
    /// The form of new layers.
    format: Format,
    /// Held while an image is mounted, so that it is mounted once.
    mounting: Mutex<()>,
    /// Held while layers are made durable, since a write error is told once.
    settling: Mutex<()>,
    index: Mutex<Index>,
    /// Told when a preparation ends, one way or the other.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Index {
    complete: HashMap<SnapshotKey, Stored>,
    /// Keys in preparation, so that neither they nor their parents are taken or removed meanwhile.
    preparing: HashMap<SnapshotKey, Preparing>,
    unsettled: Unsettled,
    /// What removed snapshots take until they are swept, by their numbers.
    removing: HashMap<u64, Usage>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Preparing {
    parent: Option<SnapshotKey>,
    kind: SnapshotKind,
}

#[derive(Clone, Debug)]
struct Stored {
    number: u64,
    record: Record,
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
    /// Starts a layer on top of `parent`. Nothing is there under the key until [`LayerWriter::commit`].
    ///
    /// The parent may itself still be in preparation, by another thread: this layer then waits for it where it needs
    /// the files below, and in `commit`. A thread that prepares both commits the parent first.
    ///
    /// # Errors
    /// `AlreadyExists` for a complete key, `Conflict` for one in preparation, `NotFound` for an unknown parent.
    pub fn prepare_layer(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
    ) -> Result<LayerWriter> {
        let number = self.reserve(key, parent, SnapshotKind::Layer)?;
        let record = Record::new(key, parent, SnapshotKind::Layer, self.shared.format);
        self.create(number, &record)
            .and_then(|directory| LayerWriter::new(self.clone(), number, record, directory))
            .inspect_err(|_| self.abandon(key, number))
    }

    /// Creates the writable layer of a container.
    ///
    /// # Errors
    /// As [`Snapshots::prepare_layer`].
    pub fn prepare_container(&self, key: &SnapshotKey, parent: Option<&SnapshotKey>) -> Result<()> {
        let number = self.reserve(key, parent, SnapshotKind::Container)?;
        let record = Record::new(key, parent, SnapshotKind::Container, Format::Directory);
        let made = self.create(number, &record).and_then(|directory| {
            if let Some(below) = self.lower_paths(parent)?.first() {
                copy_root(below, &directory)?;
            }
            directory
                .create_dir("work", Mode::from_raw_mode(0o700))
                .attempt(|| "create the work directory".into())?;
            write_record(&directory, RECORD, &record)?;
            self.complete(number, record, None)
        });
        made.inspect_err(|_| self.abandon(key, number))
            .attempt(|| format!("prepare container snapshot {key}"))
    }

    /// The form of new layers.
    #[must_use]
    pub fn format(&self) -> Format {
        self.shared.format
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

    /// Removes a snapshot from the index and from its place. Its files are deleted by [`Snapshots::sweep`], which may
    /// run behind; a crash in between loses nothing, since the next sweep finds them. A power cut before that sweep may
    /// bring the snapshot back, whole: whoever removes what nobody needs does so at the start, too.
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
                        .find(|(_, preparing)| preparing.parent.as_ref() == Some(key))
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
        self.put_aside(key, stored)
    }

    /// Takes a snapshot that is no longer in the index from its place, or puts it into the index again.
    fn put_aside(&self, key: &SnapshotKey, stored: Stored) -> Result<()> {
        let number = stored.number;
        let usage = stored.record.usage.unwrap_or_default();
        let rename = || {
            let (from, to) = (number.to_string(), format!("{REMOVING}{number}"));
            self.shared.root.rename(from, to, RenameFlags::empty())
        };
        let renamed = self
            .hide(number)
            .and_then(|()| rename().attempt(|| "put it aside".into()))
            .attempt(|| format!("remove snapshot {key}"));
        if renamed.is_err() {
            self.index().complete.insert(key.clone(), stored);
        }
        renamed?;
        let mut index = self.index();
        index.unsettled.remove(&number);
        index.removing.insert(number, usage);
        Ok(())
    }

    /// What removed layers still take, until [`Snapshots::sweep`] has deleted them.
    #[must_use]
    pub fn removing(&self) -> Usage {
        self.index().removing.values().fold(Usage::default(), |sum, usage| Usage {
            bytes: sum.bytes.saturating_add(usage.bytes),
            inodes: sum.inodes.saturating_add(usage.inodes),
        })
    }

    /// Deletes the files of removed snapshots; continues past failures and reports them all.
    ///
    /// # Errors
    /// The first failure, with the number of others.
    pub fn sweep(&self) -> Result<()> {
        let mut failures = Vec::new();
        let entries = self.shared.root.read_dir("").attempt(|| "list the snapshots".into())?;
        let names = entries.iter().map(|entry| entry.name.to_string_lossy());
        let removed: Vec<_> = names.filter(|name| name.starts_with(REMOVING)).collect();
        if !removed.is_empty() {
            // No file may go for good before its snapshot has.
            sync_directory(&self.shared.root)?;
        }
        for name in removed {
            let number = &name[REMOVING.len()..];
            match self.delete(&name) {
                Ok(()) => drop(number.parse().map(|number| self.index().removing.remove(&number))),
                Err(error) => failures.push(error.within(format!("delete snapshot {name}"))),
            }
        }
        let others = failures.len().saturating_sub(1);
        match failures.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(first.within(format!("sweep snapshots ({others} more failures)"))),
        }
    }

    /// Deletes a removed snapshot. Nothing is deleted through an image that is still mounted there.
    fn delete(&self, name: &str) -> Result<()> {
        image::detach(&self.shared.root, &self.shared.path, name)?;
        self.shared.root.remove_all(name).attempt(|| "delete its files".into())
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
                let upper = self.open_files(&stored)?;
                let mut usage = Usage::default();
                count(&upper, Path::new(""), &mut usage)
                    .attempt(|| format!("count the files of snapshot {key}"))?;
                Ok(usage)
            }
        }
    }

    /// How a snapshot differs from its parent, as `docker diff` tells it, in the order of paths. What is empty at
    /// `mount_points`, and not below, was made to mount something there and is left out.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn changes(&self, key: &SnapshotKey, mount_points: &[&str]) -> Result<Vec<Change>> {
        let (upper, lower) = self.layer_pair(key)?;
        diff::changes(&upper, &lower, mount_points)
            .attempt(|| format!("compare snapshot {key} with its parent"))
    }

    /// Writes the difference as a layer archive, with whiteouts and without what [`Snapshots::changes`] leaves out. The same
    /// files always give the same bytes.
    ///
    /// # Errors
    /// As [`Snapshots::changes`], and the writer's.
    pub fn diff_tar(
        &self,
        key: &SnapshotKey,
        mount_points: &[&str],
        output: &mut impl std::io::Write,
    ) -> Result<()> {
        let (upper, lower) = self.layer_pair(key)?;
        diff::write_tar(&upper, &lower, mount_points, output)
            .attempt(|| format!("archive snapshot {key}"))
    }

    fn layer_pair(&self, key: &SnapshotKey) -> Result<(Root, LowerLayers)> {
        let stored = self.find(key)?;
        let lower = LowerLayers::open(&self.lower_paths(stored.record.parent.as_ref())?)?;
        Ok((self.open_files(&stored)?, lower))
    }

    fn open_files(&self, stored: &Stored) -> Result<Root> {
        Root::open(self.show(stored)?)
            .attempt(|| format!("open the files of snapshot {}", stored.record.key))
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
        let chain = self.index().chain(top)?;
        chain.iter().map(|stored| self.show(stored)).collect()
    }

    /// Takes a key and a number.
    fn reserve(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        kind: SnapshotKind,
    ) -> Result<u64> {
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
            let found = match (index.complete.get(parent), index.preparing.get(parent)) {
                (Some(stored), _) => stored.record.kind,
                // A container needs a parent that is there.
                (None, Some(preparing)) if kind == SnapshotKind::Layer => preparing.kind,
                _ => return Err(unknown(parent)),
            };
            if found != SnapshotKind::Layer {
                let problem = format!("snapshot {parent} is a container's and cannot be a parent");
                return Err(Error::new(ErrorKind::InvalidInput, problem));
            }
        }
        let number = index.next;
        index.next += 1;
        index.preparing.insert(key.clone(), Preparing { parent: parent.cloned(), kind });
        Ok(number)
    }

    /// Waits until a layer is complete and gives the directories from it downwards, topmost first.
    fn await_paths(&self, key: Option<&SnapshotKey>) -> Result<Vec<PathBuf>> {
        let mut index = self.index();
        if let Some(key) = key {
            while index.preparing.contains_key(key) {
                index = self.shared.changed.wait(index).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(index);
        self.lower_paths(key)
    }

    /// Makes `new-<number>/` with what it is to become and an empty `fs/`.
    fn create(&self, number: u64, record: &Record) -> Result<Root> {
        let name = format!("{NEW}{number}");
        let attempt = || format!("create snapshot directory {name}");
        self.shared.root.create_dir(&name, Mode::from_raw_mode(0o700)).attempt(attempt)?;
        let directory = self.shared.root.subroot(&name).attempt(attempt)?;
        let text = serde_json::to_vec(record).map_err(std::io::Error::from).attempt(attempt)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let intent = directory
            .open_beneath("intent.json", flags, Mode::from_raw_mode(0o600))
            .attempt(attempt)?;
        std::io::Write::write_all(&mut std::fs::File::from(intent), &text).attempt(attempt)?;
        directory.create_dir("fs", Mode::from_raw_mode(0o755)).attempt(attempt)?;
        let files = open_files_of(&directory)?;
        rustix::fs::fchmod(&files, Mode::from_raw_mode(0o755)).attempt(attempt)?;
        Ok(directory)
    }

    /// Gives a prepared directory its final name. With a witness ([`settle`]) it is not durable yet.
    fn complete(&self, number: u64, record: Record, unsettled: Option<Arc<OwnedFd>>) -> Result<()> {
        let attempt = || format!("complete snapshot {}", record.key);
        self.shared
            .root
            .rename(format!("{NEW}{number}"), number.to_string(), RenameFlags::NOREPLACE)
            .attempt(attempt)?;
        if unsettled.is_none() {
            sync_directory(&self.shared.root).attempt(attempt)?;
        }
        let mut index = self.index();
        index.unsettled.extend(unsettled.map(|witness| (number, witness)));
        index.preparing.remove(&record.key);
        index.complete.insert(record.key.clone(), Stored { number, record });
        self.shared.changed.notify_all();
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
        self.shared.changed.notify_all();
    }
}

impl Index {
    /// A snapshot and all below it, topmost first.
    fn chain(&self, top: Option<&SnapshotKey>) -> Result<Vec<Stored>> {
        let mut chain = Vec::new();
        let mut next = top;
        while let Some(key) = next {
            let stored = self.complete.get(key).ok_or_else(|| unknown(key))?;
            if chain.len() > self.complete.len() {
                return Err(Error::integrity(format!("snapshot {key} is its own ancestor")));
            }
            chain.push(stored.clone());
            next = stored.record.parent.as_ref();
        }
        Ok(chain)
    }
}

fn unknown(key: &SnapshotKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("no snapshot {key}"))
}

fn open_files_of(directory: &Root) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    directory
        .open_beneath("fs", flags, Mode::empty())
        .attempt(|| "open the files of a snapshot".into())
}

/// Makes `fs/` look like the root below it: in overlayfs the uppermost directory gives the root its owner and mode.
fn copy_root(below: &Path, directory: &Root) -> Result<()> {
    let attempt = || format!("copy the attributes of {}", below.display());
    let below = Root::open(below).attempt(attempt)?;
    let files = open_files_of(directory)?;
    let stat = rustix::fs::fstat(&below).attempt(attempt)?;
    let copied = attributes::read(below.as_fd(), &stat)?;
    attributes::apply(files.as_fd(), &copied, FileType::Directory)?;
    attributes::set_modified(files.as_fd(), copied.modified).attempt(attempt)
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
        usage.bytes += allocated(stat.st_blocks);
        if file_type(&stat) == FileType::Directory {
            match count(root, &path.join(&entry.name), usage) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
