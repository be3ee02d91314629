//! From verified layers to snapshots.

use brig_images::Image;
use brig_storage::{ApplyOptions, SnapshotKey};

use super::Images;
use crate::error::{Error, Result};
use crate::stream::{Progress, ProgressSender};

impl Images {
    /// Makes sure that all layers of an image are unpacked; returns the key of the topmost, `None` for an image without
    /// layers.
    pub(crate) async fn unpack(
        &self,
        image: &Image,
        progress: Option<&ProgressSender>,
    ) -> Result<Option<String>> {
        let chain: Vec<String> = image.chain_ids().iter().map(ToString::to_string).collect();
        for (index, chain_id) in chain.iter().enumerate() {
            let short = image.layers[index].digest.short().to_owned();
            let lock = self.lock_of(chain_id);
            let _alone = lock.lock().await;
            let key = SnapshotKey::parse(chain_id.clone())?;
            if !self.0.storage.snapshots().exists(&key) {
                if let Some(progress) = progress {
                    progress.send(Progress::of(&short, "Extracting"));
                }
                let parent = index.checked_sub(1).map(|below| chain[below].clone());
                self.unpack_layer(image, index, key, parent).await?;
            }
            if let Some(progress) = progress {
                progress.send(Progress::of(&short, "Pull complete"));
            }
        }
        Ok(chain.into_iter().next_back())
    }

    async fn unpack_layer(
        &self,
        image: &Image,
        index: usize,
        key: SnapshotKey,
        parent: Option<String>,
    ) -> Result<()> {
        let (layer, diff_id) = (image.layers[index].clone(), image.diff_ids[index].clone());
        self.blocking(move |this| {
            let parent = parent.map(SnapshotKey::parse).transpose()?;
            let digest = layer.digest.clone();
            let unpacked = || -> Result<()> {
                let mut reader = this.0.store.layer(&layer, &diff_id)?;
                let mut writer = this.0.storage.snapshots().prepare_layer(&key, parent.as_ref())?;
                writer.apply(&mut reader, &ApplyOptions::for_compressed_size(layer.size))?;
                // The end of the stream has verified both digests; nothing unverified becomes visible.
                reader.finish()?;
                writer.commit()?;
                Ok(())
            };
            unpacked().map_err(|error| error.context(format!("unpack layer {digest}")))
        })
        .await
    }
}

/// Keeps removals away while a new container takes hold of its layers.
#[derive(Debug)]
pub(crate) struct Using<'a> {
    _shared: tokio::sync::RwLockReadGuard<'a, ()>,
}

impl Images {
    /// Until the guard is dropped no layer is removed.
    pub(crate) async fn using(&self) -> Using<'_> {
        Using { _shared: self.0.removal.read().await }
    }

    /// Removes snapshots of layers that no image and no container stands on.
    pub(super) fn sweep_layers(&self) -> Result<Vec<String>> {
        let mut needed: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        for named in self.all()? {
            needed.extend(named.image.chain_ids().iter().map(ToString::to_string));
        }
        needed.extend(
            self.0.table.views().iter().filter_map(|view| view.record.parent_layer.clone()),
        );
        let snapshots = self.0.storage.snapshots();
        let mut removed = Vec::new();
        // Children first: a layer with another on top cannot go.
        loop {
            let list = snapshots.list();
            let parents: std::collections::BTreeSet<&str> = list
                .iter()
                .filter_map(|info| info.parent.as_ref().map(SnapshotKey::as_str))
                .collect();
            let loose: Vec<SnapshotKey> = list
                .iter()
                .filter(|info| info.kind == brig_storage::SnapshotKind::Layer)
                .filter(|info| {
                    !needed.contains(info.key.as_str()) && !parents.contains(info.key.as_str())
                })
                .map(|info| info.key.clone())
                .collect();
            if loose.is_empty() {
                return Ok(removed);
            }
            for key in loose {
                snapshots.remove(&key).map_err(|source| {
                    Error::from(source).context("remove layers that nothing uses")
                })?;
                removed.push(key.as_str().to_owned());
            }
        }
    }
}
