//! What has to be mounted to see a snapshot.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Snapshots;
use super::record::{SnapshotKey, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};

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

impl Snapshots {
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
}

/// Overlayfs separates layers by colons; our paths are escaped as it asks.
fn lower_option(layers: &[PathBuf]) -> String {
    let escaped: Vec<String> = layers
        .iter()
        .map(|path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:"))
        .collect();
    format!("lowerdir={}", escaped.join(":"))
}
