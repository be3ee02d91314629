//! From configuration to a running engine: directories, stores, adoption, policies; in this order.
//!
//! ```text
//! <root>   0700  format content/ storage/ metadata.redb containers/<id>/ engine-id
//! <state>  0700  containers/<id>/ (bundles) netns/<id> runtime/ (the runtime's own state)
//! ```

use std::path::Path;
use std::sync::Arc;

use brig_shim_protocol::bundle;
use brig_storage::Storage;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking;
use crate::config::Config;
use crate::container::{Containers, Shared, Table, make_directory};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;
use crate::image::Images;
use crate::metadata::Metadata;
use crate::name;
use crate::network::Networks;
use crate::system::System;
use crate::volume::Volumes;

/// Raised with each change of what is on disk that an older engine would misread or damage.
const FORMAT: u32 = 1;

/// Magic number of the unified cgroup file system (linux/magic.h).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// Opens the stores and adopts what a former engine left.
pub(crate) async fn open(config: Config) -> Result<Arc<Engine>> {
    config.check()?;
    let config = Arc::new(config);
    let tasks = TaskTracker::new();
    let (table, events) = (Table::default(), Events::new());
    let again = Arc::clone(&config);
    let (metadata, storage, id) = blocking::run(move || {
        make_directories(&again)?;
        check_format(&again.root)?;
        check_shims(&again.state)?;
        // First of all: its lock tells a second engine on this root to go away.
        let metadata = Metadata::open(&again.root.join("metadata.redb"))?;
        let storage = Storage::open_with(again.root.join("storage"), again.snapshotter)?;
        write_format(&again.root)?;
        Ok((metadata, Arc::new(storage), engine_id(&again.root)?))
    })
    .await?;
    let images =
        Images::open(&config, Arc::clone(&storage), events.clone(), table.clone(), tasks.clone())?;
    let networks = Networks::open(
        Arc::clone(&config),
        metadata.clone(),
        events.clone(),
        table.clone(),
        tasks.clone(),
    )
    .await?;
    let volumes = Volumes::new(Arc::clone(&storage), table.clone(), events.clone());
    let shared = Arc::new(Shared {
        config,
        metadata: metadata.clone(),
        events: events.clone(),
        storage,
        images: images.clone(),
        networks: networks.clone(),
        volumes: volumes.clone(),
        table,
        execs: Default::default(),
        tasks,
        closing: CancellationToken::new(),
        cgroup_v2: has_only_cgroup_v2(),
    });
    let containers = Containers::new(Arc::clone(&shared));
    containers.adopt(metadata.containers()?).await?;
    sweep(&shared).await;
    networks.guard(shared.closing.clone());
    let policies = containers.clone();
    shared.tasks.spawn(async move { policies.start_by_policy().await });
    let system = System::new(shared, containers.clone(), id);
    Ok(Arc::new(Engine { containers, images, networks, volumes, events, system }))
}

fn make_directories(config: &Config) -> Result<()> {
    for directory in [&config.root, &config.state] {
        make_directory(directory)?;
    }
    for directory in ["containers", "netns", "runtime", "subpaths"] {
        make_directory(&config.state.join(directory))?;
    }
    make_directory(&config.root.join("containers"))
}

/// Refuses to take over containers whose shims are newer, before anything of them is touched.
fn check_shims(state: &Path) -> Result<()> {
    let directory = state.join("containers");
    let entries = std::fs::read_dir(&directory)
        .map_err(|source| Error::io(format!("list {}", directory.display()), source))?;
    for bundle in entries.flatten().map(|entry| entry.path()) {
        if let Some(version) = bundle::version(&bundle).filter(|it| *it > bundle::VERSION) {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "take over {}: a newer shim keeps it (version {version}, this engine knows {}); nothing was \
                     touched; use the newer engine",
                    bundle.display(),
                    bundle::VERSION
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses the data of a newer engine before anything of it is opened.
fn check_format(root: &Path) -> Result<()> {
    let file = root.join("format");
    let what = || format!("read {}", file.display());
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::io(what(), source)),
    };
    match text.trim().parse::<u32>() {
        Ok(format) if format <= FORMAT => Ok(()),
        Ok(format) => Err(Error::new(
            ErrorKind::Integrity,
            format!(
                "{}: a newer engine wrote this root (format {format}, this engine knows {FORMAT}); nothing was \
                 touched; use the newer engine",
                what()
            ),
        )),
        Err(source) => Err(Error::new(ErrorKind::Integrity, what()).with_source(source)),
    }
}

/// Marks the root as written by this engine, once the locks are held.
fn write_format(root: &Path) -> Result<()> {
    let (file, new) = (root.join("format"), root.join("format.new"));
    let text = format!("{FORMAT}\n");
    if std::fs::read_to_string(&file).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        std::fs::write(&new, &text)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &file)?;
        std::fs::File::open(root)?.sync_all()
    };
    write().map_err(|source| Error::io(format!("write {}", file.display()), source))
}

/// This engine's identifier, made once.
fn engine_id(root: &Path) -> Result<String> {
    let file = root.join("engine-id");
    if let Ok(text) = std::fs::read_to_string(&file)
        && text.trim().len() == 64
    {
        return Ok(text.trim().to_owned());
    }
    let id = name::new_id();
    std::fs::write(&file, &id)
        .map_err(|source| Error::io(format!("write {}", file.display()), source))?;
    Ok(id)
}

fn has_only_cgroup_v2() -> bool {
    let statfs = rustix::fs::statfs("/sys/fs/cgroup");
    statfs.is_ok_and(|statfs| {
        u64::try_from(statfs.f_type).is_ok_and(|magic| magic == CGROUP2_SUPER_MAGIC)
    })
}

/// Removes what a crash left without an owner: snapshots and directories of containers that have no record.
async fn sweep(shared: &Arc<Shared>) {
    let again = Arc::clone(shared);
    let swept = blocking::run(move || {
        let known =
            |id: &str| again.table.find(id).is_ok_and(|handle| handle.view().record.id == id);
        let snapshots = again.storage.snapshots();
        for info in snapshots.list() {
            let container = info.kind == brig_storage::SnapshotKind::Container;
            if container && !known(info.key.as_str()) {
                snapshots.remove(&info.key)?;
            }
        }
        for directory in
            [again.config.root.join("containers"), again.config.state.join("containers")]
        {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in
                entries.flatten().filter(|entry| !known(&entry.file_name().to_string_lossy()))
            {
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!("remove {}: {error}", entry.path().display());
                }
            }
        }
        Ok(())
    });
    if let Err(error) = swept.await {
        tracing::warn!("remove what a former engine left: {}", error.report());
    }
    if let Err(error) = shared.images.remove_unused_layers().await {
        tracing::warn!("remove layers that nothing uses: {}", error.report());
    }
    // What takes long goes on behind.
    shared.images.sweep_behind();
    shared.images.settle_behind();
}
