//! Layers that are EROFS images: written, mounted when they are needed, and unmounted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use brig_linux::mount;
use brig_linux::path::Root;
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};

use super::record::Format;
use super::{Shared, Snapshots, Stored};
use crate::erofs;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::extract::Applied;
use crate::layer::lower::LowerLayers;
use crate::tarball::Limits;

/// The image in a snapshot's directory.
pub(super) const IMAGE: &str = "layer.erofs";

impl Snapshots {
    /// Where a snapshot's files are to be seen.
    pub(super) fn show(&self, stored: &Stored) -> Result<PathBuf> {
        let directory = self.directory(stored.number);
        let files = directory.join("fs");
        if stored.record.format == Format::Erofs {
            let attempt = || format!("mount the image of layer {}", stored.record.key);
            let _once = self.shared.mounting.lock().unwrap_or_else(PoisonError::into_inner);
            let place = format!("{}/fs", stored.number);
            if !is_mount_point(&self.shared.root, &place)? {
                let image = mount_image(&directory.join(IMAGE)).attempt(attempt)?;
                let target = self.shared.root.resolve(&place).attempt(attempt)?;
                mount::attach(&image, &target).attempt(attempt)?;
            }
        }
        Ok(files)
    }

    /// Undoes [`Self::show`]. Mounts of containers that stand on it have their own hold.
    pub(super) fn hide(&self, number: u64) -> Result<()> {
        let _once = self.shared.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        detach(&self.shared.root, &self.shared.path, &number.to_string())
    }
}

impl Drop for Shared {
    /// Leaves no mounts behind; the next user mounts again what it needs.
    fn drop(&mut self) {
        let index = self.index.get_mut().unwrap_or_else(PoisonError::into_inner);
        let images = index.complete.values().filter(|stored| stored.record.format == Format::Erofs);
        for stored in images {
            if let Err(error) = detach(&self.root, &self.path, &stored.number.to_string()) {
                tracing::warn!(key = %stored.record.key, ?error, "the image stays mounted");
            }
        }
    }
}

/// Detaches what is mounted at the files of a snapshot directory, if anything is.
pub(super) fn detach(snapshots: &Root, path: &Path, name: &str) -> Result<()> {
    let files = format!("{name}/fs");
    match is_mount_point(snapshots, &files) {
        Ok(true) => mount::detach(&path.join(&files)).attempt(|| format!("unmount layer {name}")),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes an archive as the image of a snapshot directory.
pub(super) fn write(
    directory: &Root,
    reader: &mut dyn Read,
    lower: &LowerLayers,
    limits: &Limits,
) -> Result<Applied> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
    let file = directory
        .open_beneath(IMAGE, flags, Mode::from_raw_mode(0o600))
        .attempt(|| "create the image of the layer".into())?;
    erofs::apply::apply(reader, File::from(file), lower, limits).map(|(applied, _)| applied)
}

fn mount_image(path: &Path) -> brig_linux::Result<std::os::fd::OwnedFd> {
    let source = path.display().to_string();
    mount::filesystem("erofs", &[("source", Some(&source)), ("ro", None)], 0)
}

/// Whether this kernel mounts EROFS images straight from files: makes an empty one and tries.
pub(crate) fn check_support(storage: &Root, path: &Path) -> Result<()> {
    const PROBE: &str = "probe.erofs";
    let attempt = || "try an EROFS image".to_owned();
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::NOFOLLOW;
    let file = storage.open_beneath(PROBE, flags, Mode::from_raw_mode(0o600)).attempt(attempt)?;
    let nothing = &mut std::io::empty();
    erofs::apply::apply(nothing, File::from(file), &LowerLayers::default(), &Limits::default())?;
    let mounted = mount_image(&path.join(PROBE));
    storage.remove_all(PROBE).attempt(attempt)?;
    mounted.map(drop).map_err(|source| {
        Error::new(
            ErrorKind::Unsupported,
            "this kernel does not mount EROFS images from files (Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE does); \
             use the overlay snapshotter",
        )
        .caused_by(source)
    })
}

/// Whether something is mounted at a place (statx(2), Linux 5.8).
pub(crate) fn is_mount_point(root: &Root, place: impl AsRef<Path>) -> Result<bool> {
    let place = place.as_ref();
    let attempt = || format!("look at {}", place.display());
    let found = root.resolve(place).attempt(attempt)?;
    let stat = rustix::fs::statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .attempt(attempt)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
