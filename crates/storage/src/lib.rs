//! Container storage: snapshots on overlayfs and EROFS, safe layer application, diffs, volumes and bind sources.
//!
//! This crate knows files on disk and nothing of registries: layers come as any reader of an uncompressed tar stream,
//! under a key that the caller chooses. It mounts nothing that anyone else sees; it says what to mount.
//!
//! - [`Snapshots`]: layers and the writable layers of containers; prepare, apply, commit, mounts, diff, remove.
//! - [`Volumes`]: named directories that outlive containers.
//! - [`Tree`]: the files of one container, for copying in and out, racing containers included.
//! - [`resolve_bind`]: a host path for a bind mount, resolved once.
//!
//! # Example
//!
//! ```no_run
//! use brig_storage::{ApplyOptions, Durability, SnapshotKey, Storage, Tree};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = Storage::open("/var/lib/example/storage")?;
//! let snapshots = storage.snapshots();
//!
//! // A layer: an archive under a key. It is there after `commit`, durably, or not at all.
//! let layer = SnapshotKey::parse("sha256:0123")?;
//! let mut writer = snapshots.prepare_layer(&layer, None)?;
//! writer.apply(&mut std::fs::File::open("layer.tar")?, &ApplyOptions::default())?;
//! writer.commit(Durability::Now)?;
//!
//! // A container on top of it, and what its runtime has to mount.
//! let container = SnapshotKey::parse("web")?;
//! snapshots.prepare_container(&container, Some(&layer))?;
//! let mounts = snapshots.mounts(&container)?;
//!
//! // Its files, without mounting anything that others see.
//! let tree = Tree::of_snapshot(&mounts, Vec::new())?;
//! let passwd = tree.read_file("/etc/passwd", 1 << 20)?;
//! # Ok(())
//! # }
//! ```
//!
//! All of it needs root, overlayfs, and Linux 5.10.

#![forbid(unsafe_code)]

mod bind;
mod diff;
mod durable;
mod erofs;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod layer;
mod measure;
mod snapshot;
mod store;
mod tarball;
mod tree;
mod volume;

pub use bind::{BindSource, MissingSource, resolve_bind};
pub use diff::{Change, ChangeKind};
pub use error::{Error, ErrorKind, Result};
pub use layer::extract::Applied;
pub use measure::Measured;
pub use snapshot::{
    ApplyOptions, Durability, Format, LayerWriter, Mount, SnapshotFault, SnapshotInfo, SnapshotKey,
    SnapshotKind, Snapshots, Usage,
};
pub use store::Storage;
pub use tarball::Limits;
pub use tree::{Attachment, PathStat, Tree, WriteOptions};
pub use volume::{Volume, VolumeRequest, Volumes, withdraw};
