//! What a container has mounted, made present before its start and withdrawn after its end.
//!
//! ```text
//! STATE/subpaths/<container>/<number>   a part of a volume, bound here; nothing removes this recursively
//! ```

use std::path::{Path, PathBuf};

use brig_storage::MissingSource;

use super::Shared;
use super::lifecycle::make_directory;
use crate::error::{Error, Failures, Result};
use crate::metadata::{ContainerRecord, MountKind};

/// Makes the sources of volumes and binds present; returns the record with their paths on the host.
pub(super) fn present(shared: &Shared, mut record: ContainerRecord) -> Result<ContainerRecord> {
    let parts = parts(shared, &record.id);
    for (number, mount) in record.mounts.iter_mut().enumerate() {
        match mount.kind {
            MountKind::Volume => {
                let volumes = shared.storage.volumes();
                let name = mount.name.as_deref().unwrap_or_default();
                let mut source = volumes.mount(name)?;
                if !mount.subpath.is_empty() {
                    source = parts.join(number.to_string());
                    make_directory(&parts)?;
                    volumes.present(name, mount.subpath.as_ref(), &source)?;
                }
                mount.source = source.display().to_string();
            }
            MountKind::Bind => {
                let missing = if mount.create_source {
                    MissingSource::CreateDirectory
                } else {
                    MissingSource::Refuse
                };
                brig_storage::resolve_bind(Path::new(&mount.source), missing)?;
            }
            MountKind::Tmpfs => {}
        }
    }
    Ok(record)
}

/// Undoes [`present`] for a container that has ended. Goes on past errors.
pub(super) fn withdraw(shared: &Shared, record: &ContainerRecord) -> Result<()> {
    let mut failures = Failures::default();
    let parts = parts(shared, &record.id);
    if parts.exists() {
        for number in 0..record.mounts.len() {
            let withdrawn = brig_storage::withdraw(&parts.join(number.to_string()));
            failures.note(withdrawn.map_err(Error::from));
        }
        let removed = std::fs::remove_dir(&parts);
        failures.note(
            removed.map_err(|source| Error::io(format!("remove {}", parts.display()), source)),
        );
    }
    let names = record.mounts.iter().filter_map(|mount| mount.name.as_deref());
    for volume in names.filter(|name| !shared.volumes.is_mounted_for_others(name, &record.id)) {
        failures.note(shared.storage.volumes().unmount(volume).map_err(Error::from));
    }
    failures.into_result("unmount the container's volumes")
}

fn parts(shared: &Shared, id: &str) -> PathBuf {
    shared.config.state.join("subpaths").join(id)
}
