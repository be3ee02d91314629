//! Who holds each byte beneath the engine's root.
//!
//! The root is walked, and what is found is attributed by its place; so the sum is what is on disk, whatever the records
//! say. What containers write is walked by `storage`, through descriptors.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use brig_storage::SnapshotKind;

use crate::blocking;
use crate::container::Shared;
use crate::error::{Error, Result};

/// One object on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEntry {
    /// `blob`, `layer`, `container`, `log`, `files`, `volume`, `transfer`, `removed` or `records`.
    pub kind: &'static str,
    /// Which one: a digest, a key, a name, a path.
    pub name: String,
    /// Allocated bytes.
    pub bytes: u64,
    /// Names of images and containers; empty for what goes with the next removal or prune.
    pub holders: Vec<String>,
}

impl DiskEntry {
    fn new(kind: &'static str, name: impl Into<String>, bytes: u64, holders: Vec<String>) -> Self {
        Self { kind, name: name.into(), bytes, holders }
    }
}

/// Attributes everything, the largest first.
pub(crate) async fn explain(shared: &Arc<Shared>) -> Result<Vec<DiskEntry>> {
    let content = shared.images.compare_content(Arc::default()).await?;
    let layers = shared.images.layer_holders().await?;
    let shared = Arc::clone(shared);
    blocking::run(move || {
        let mut entries = Vec::new();
        let root = &shared.config.root;
        let mut records = own(root)?;
        for path in list(root)? {
            match path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default() {
                "content" => of_content(&path, &content.holders, &mut entries)?,
                "storage" => of_storage(&shared, &layers, &mut entries)?,
                "containers" => of_containers(&shared, &path, &mut entries)?,
                _ => records += walk(&path)?,
            }
        }
        entries.push(DiskEntry::new("records", "brigd", records, vec!["brigd".into()]));
        entries.sort_by(|left, right| {
            right.bytes.cmp(&left.bytes).then_with(|| left.name.cmp(&right.name))
        });
        Ok(entries)
    })
    .await
}

fn of_content(
    content: &Path,
    holders: &HashMap<brig_images::Digest, Vec<String>>,
    entries: &mut Vec<DiskEntry>,
) -> Result<()> {
    let mut records = own(content)?;
    for path in list(content)? {
        let name = file_name(&path);
        match name.as_str() {
            "blobs" => {
                records += own(&path)?;
                for algorithm in list(&path)? {
                    records += own(&algorithm)?;
                    for blob in list(&algorithm)? {
                        let digest = format!("{}:{}", file_name(&algorithm), file_name(&blob));
                        let known = brig_images::Digest::parse(&digest).ok();
                        let holders = known.and_then(|digest| holders.get(&digest).cloned());
                        let holders = holders.unwrap_or_default();
                        entries.push(DiskEntry::new("blob", digest, walk(&blob)?, holders));
                    }
                }
            }
            "ingest" => {
                records += own(&path)?;
                for transfer in list(&path)? {
                    let holders = vec!["a transfer that may go on".into()];
                    let (name, bytes) = (file_name(&transfer), walk(&transfer)?);
                    entries.push(DiskEntry::new("transfer", name, bytes, holders));
                }
            }
            _ => records += walk(&path)?,
        }
    }
    entries.push(DiskEntry::new("records", "content", records, vec!["brigd".into()]));
    Ok(())
}

fn of_storage(
    shared: &Shared,
    layers: &HashMap<String, Vec<String>>,
    entries: &mut Vec<DiskEntry>,
) -> Result<()> {
    let measured = shared.storage.measure()?;
    let kinds: HashMap<String, SnapshotKind> = shared
        .storage
        .snapshots()
        .list()
        .into_iter()
        .map(|info| (info.key.to_string(), info.kind))
        .collect();
    let views = shared.table.views();
    for (key, bytes) in measured.snapshots {
        let key = key.to_string();
        if kinds.get(&key) == Some(&SnapshotKind::Container) {
            let holder = container_name(shared, &key);
            let holders = holder.into_iter().collect();
            entries.push(DiskEntry::new("container", key, bytes, holders));
        } else {
            let holders = layers.get(&key).cloned().unwrap_or_default();
            entries.push(DiskEntry::new("layer", key, bytes, holders));
        }
    }
    for (name, bytes) in measured.volumes {
        let users = views.iter().filter(|view| {
            view.record.mounts.iter().any(|mount| mount.name.as_deref() == Some(&*name))
        });
        let mut holders = vec![format!("volume {name}")];
        holders.extend(users.map(|view| format!("container {}", view.record.name)));
        entries.push(DiskEntry::new("volume", name, bytes, holders));
    }
    if measured.passing > 0 {
        let name = "layers being made or deleted";
        entries.push(DiskEntry::new("removed", name, measured.passing, Vec::new()));
    }
    let holders = vec!["brigd".into()];
    entries.push(DiskEntry::new("records", "storage", measured.other, holders));
    Ok(())
}

fn of_containers(shared: &Shared, directory: &Path, entries: &mut Vec<DiskEntry>) -> Result<()> {
    let records = own(directory)?;
    entries.push(DiskEntry::new("records", "containers", records, vec!["brigd".into()]));
    for path in list(directory)? {
        let id = file_name(&path);
        let holders: Vec<String> = container_name(shared, &id).into_iter().collect();
        let (mut logs, mut files) = (0, own(&path)?);
        for file in list(&path)? {
            let bytes = walk(&file)?;
            // The log, and the files it was rotated to.
            if file_name(&file).contains(".log") {
                logs += bytes;
            } else {
                files += bytes;
            }
        }
        entries.push(DiskEntry::new("log", id.clone(), logs, holders.clone()));
        entries.push(DiskEntry::new("files", id, files, holders));
    }
    Ok(())
}

fn container_name(shared: &Shared, id: &str) -> Option<String> {
    let handle = shared.table.find(id).ok()?;
    Some(format!("container {}", handle.view().record.name))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::io(format!("measure {}", path.display()), source)
}

fn list(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries: std::io::Result<Vec<_>> =
        std::fs::read_dir(directory).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
    match entries {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(failed(directory)),
    }
}

/// One file or directory by itself; `None` if it has gone.
fn look(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// Bytes of one file or directory by itself; none if it has gone.
fn own(path: &Path) -> Result<u64> {
    Ok(look(path)?.as_ref().map_or(0, allocated))
}

/// Bytes of one file, or of a directory with all in it. Only for places that no container can write to.
fn walk(path: &Path) -> Result<u64> {
    let (mut bytes, mut pending) = (0, vec![path.to_owned()]);
    while let Some(path) = pending.pop() {
        let Some(metadata) = look(&path)? else { continue };
        bytes += allocated(&metadata);
        if metadata.is_dir() {
            pending.extend(list(&path)?);
        }
    }
    Ok(bytes)
}
