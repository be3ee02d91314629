//! Opening what is there, and making durable what was committed for later.
//!
//! A layer that can be made again from its archive need not wait for the disk: committed with [`Durability::Later`] it
//! is complete at once, and carries `unsettled.json`, which names the boot it was written in, instead of `record.json`.
//! [`Snapshots::settle`] syncs all such layers with one call and gives them their records. A layer found without a
//! record in a later boot may have lost files in a power cut, so it is put aside as a whole.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use brig_linux::path::Root;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use super::record::{Record, SnapshotKey};
use super::{Format, Index, NEW, RECORD, REMOVING, Shared, SnapshotKind, Snapshots, Stored, Usage};
use crate::durable::{private_directory, read_record, sync_directory, write_record};
use crate::error::{Attempt, ErrorKind, Result};

/// The record of a layer that may not be on disk yet.
pub(super) const UNSETTLED: &str = "unsettled.json";

/// From when on a committed layer survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// From when `commit` returns.
    Now,
    /// From the next [`Snapshots::settle`]. Until then a power cut takes the layer away as a whole, never in part; so
    /// this is for layers whose archive is durable.
    Later,
}

/// `unsettled.json`.
#[derive(Debug, Serialize, Deserialize)]
struct UnsettledRecord {
    /// The kernel's boot id when the files were written.
    boot: String,
    /// A sync failed: the files are what the page cache has, but will never be known to be on disk.
    lost: bool,
    record: Record,
}

/// What a snapshot directory turns out to be.
enum Opened {
    Durable(Record),
    Unsettled(Record),
    /// Usable in this boot, never to be settled.
    Lost(Record),
    Discard,
}

impl Snapshots {
    pub(crate) fn open(storage: &Root, storage_path: &Path, format: Format) -> Result<Self> {
        let root = private_directory(storage, "snapshots")?;
        let boot = boot_id();
        let mut index = Index::default();
        let entries = root.read_dir("").attempt(|| "list the snapshots".into())?;
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if let Some(number) = name.strip_prefix(NEW).or_else(|| name.strip_prefix(REMOVING)) {
                index.next = index.next.max(number.parse().map_or(0, |number: u64| number + 1));
                if name.starts_with(NEW) {
                    put_aside(&root, &name, number)?;
                } else if let Ok(number) = number.parse() {
                    index.removing.insert(number, removed_usage(&root, &name));
                }
                continue;
            }
            let Ok(number) = name.parse::<u64>() else { continue };
            index.next = index.next.max(number + 1);
            let opened = match read(&root, &name, boot.as_deref()) {
                Ok(opened) => opened,
                // Never written by us, since a record is renamed into place: left for a human to look at.
                Err(error) => {
                    tracing::error!(snapshot = %name, ?error, "snapshot has no readable record");
                    continue;
                }
            };
            let record = match opened {
                Opened::Durable(record) | Opened::Lost(record) => record,
                Opened::Unsettled(record) => {
                    index.unsettled.insert(number, witness(&root)?);
                    record
                }
                Opened::Discard => {
                    tracing::warn!(snapshot = %name, "a layer did not reach the disk; discarded");
                    put_aside(&root, &name, &name)?;
                    continue;
                }
            };
            index.complete.insert(record.key.clone(), Stored { number, record });
        }
        discard_orphans(&root, &mut index)?;
        let path = storage_path.join("snapshots");
        let (index, mounting, settling) = (Mutex::new(index), Mutex::new(()), Mutex::new(()));
        let changed = Condvar::new();
        let shared = Shared { root, path, format, mounting, settling, index, changed };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes durable what was committed with [`Durability::Later`]: one sync of the filesystem for all of it.
    ///
    /// # Errors
    /// The system's. After a failed sync the layers stay usable until the machine stops, and are discarded then.
    pub fn settle(&self) -> Result<()> {
        let _alone = self.shared.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let pending: Vec<(Stored, Arc<OwnedFd>)> = {
            let index = self.index();
            let of = |stored: &Stored| {
                Some((stored.clone(), Arc::clone(index.unsettled.get(&stored.number)?)))
            };
            index.complete.values().filter_map(of).collect()
        };
        let mut failed = None;
        for (stored, witness) in pending {
            // The first call writes everything, the others only look for errors.
            let synced = rustix::fs::syncfs(&witness);
            let written = match synced {
                Ok(()) => self.settle_one(&stored),
                Err(errno) => {
                    failed = Some(errno);
                    self.write_unsettled(&stored, true)
                }
            };
            self.index().unsettled.remove(&stored.number);
            match written {
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.attempt(|| format!("settle snapshot {}", stored.record.key))?,
            }
        }
        failed.map_or(Ok(()), Err).attempt(|| "sync the layers to disk".into())
    }

    /// Whether a layer or one below it is not durable yet.
    pub(super) fn is_unsettled(&self, key: Option<&SnapshotKey>) -> Result<bool> {
        let index = self.index();
        let chain = index.chain(key)?;
        Ok(chain.iter().any(|stored| index.unsettled.contains_key(&stored.number)))
    }

    fn settle_one(&self, stored: &Stored) -> Result<()> {
        let directory = self.open_directory(stored.number)?;
        write_record(&directory, RECORD, &stored.record)?;
        match rustix::fs::unlinkat(&directory, UNSETTLED, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => other.attempt(|| "remove the mark of an unsettled layer".into()),
        }
    }

    /// Notes that a layer is complete but not on disk; `false` where no boot can be told from another.
    pub(super) fn mark_unsettled(&self, directory: &Root, record: &Record) -> Result<bool> {
        let Some(boot) = boot_id() else { return Ok(false) };
        let mark = UnsettledRecord { boot, lost: false, record: record.clone() };
        write_unsynced(directory, &mark)?;
        Ok(true)
    }

    fn write_unsettled(&self, stored: &Stored, lost: bool) -> Result<()> {
        let boot = boot_id().unwrap_or_default();
        let mark = UnsettledRecord { boot, lost, record: stored.record.clone() };
        write_unsynced(&self.open_directory(stored.number)?, &mark)
    }

    fn open_directory(&self, number: u64) -> Result<Root> {
        self.shared.root.subroot(number.to_string()).attempt(|| format!("open snapshot {number}"))
    }
}

/// A file of the filesystem that layers are on. Since Linux 5.8 syncfs(2) on it reports the write errors of the whole
/// filesystem since it was opened, once, whoever else has been told of them.
pub(super) fn witness(directory: &Root) -> Result<Arc<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let opened = directory.open_beneath("", flags, Mode::empty());
    opened.map(Arc::new).attempt(|| "open a directory to sync".into())
}

fn write_unsynced(directory: &Root, mark: &UnsettledRecord) -> Result<()> {
    let attempt = || "mark a layer as unsettled".to_owned();
    let text = serde_json::to_vec(mark).map_err(std::io::Error::from).attempt(attempt)?;
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
    let file =
        directory.open_beneath(UNSETTLED, flags, Mode::from_raw_mode(0o600)).attempt(attempt)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &text).attempt(attempt)
}

fn read(root: &Root, name: &str, boot: Option<&str>) -> Result<Opened> {
    match read_record(root, &Path::new(name).join(RECORD)) {
        Ok(record) => return Ok(Opened::Durable(record)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // After a power cut this file may be missing, empty or cut short, like any other.
    let Ok(mark) = read_record::<UnsettledRecord>(root, &Path::new(name).join(UNSETTLED)) else {
        return Ok(Opened::Discard);
    };
    if boot != Some(mark.boot.as_str()) {
        return Ok(Opened::Discard);
    }
    Ok(if mark.lost { Opened::Lost(mark.record) } else { Opened::Unsettled(mark.record) })
}

/// Layers whose parent was discarded say nothing by themselves. Containers stay: their parent can be made again.
fn discard_orphans(root: &Root, index: &mut Index) -> Result<()> {
    loop {
        let is_orphan = |stored: &&Stored| {
            stored.record.kind == SnapshotKind::Layer
                && stored
                    .record
                    .parent
                    .as_ref()
                    .is_some_and(|key| !index.complete.contains_key(key))
        };
        let orphans: Vec<Stored> = index.complete.values().filter(is_orphan).cloned().collect();
        if orphans.is_empty() {
            return Ok(());
        }
        for orphan in orphans {
            tracing::warn!(key = %orphan.record.key, "a layer without its parent is discarded");
            let number = orphan.number.to_string();
            put_aside(root, &number, &number)?;
            index.unsettled.remove(&orphan.number);
            index.complete.remove(&orphan.record.key);
        }
    }
}

/// What a removed snapshot takes, as far as its record tells.
fn removed_usage(root: &Root, name: &str) -> Usage {
    let record: Result<Record> = read_record(root, &Path::new(name).join(RECORD));
    record.ok().and_then(|record| record.usage).unwrap_or_default()
}

fn put_aside(root: &Root, name: &str, number: &str) -> Result<()> {
    root.rename(name, format!("{REMOVING}{number}"), RenameFlags::empty())
        .attempt(|| format!("discard unfinished snapshot {name}"))?;
    sync_directory(root)
}

/// Names this run of the kernel (random(4)); `None` without /proc.
fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Layers that are complete but not known to be on disk, by number, each with a file opened before it was written.
pub(super) type Unsettled = BTreeMap<u64, Arc<OwnedFd>>;
