//! From verified layers to snapshots.
//!
//! Layers of an image are unpacked at the same time, each on two threads: one reads, verifies and decompresses, the other
//! writes files. They start in the order base first, so one that waits for its parent waits for one that runs. During a
//! pull this begins with the first bytes of each layer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use brig_images::Image;
use brig_storage::{ApplyOptions, Durability, LayerWriter, SnapshotKey};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::Images;
use super::arrival::Arrival;
use super::read_ahead::read_ahead;
use crate::blocking::StreamPlace;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::ContainerRecord;
use crate::stream::{Progress, ProgressSender};

/// Layers of one image that are unpacked at the same time.
const LAYERS_AT_ONCE: usize = 4;

/// Layers below this compressed size, in bytes, are not worth a second thread.
const SMALL_LAYER_BYTES: u64 = 256 << 10;

/// The digests of layers whose download has begun, or that are there.
pub(super) type Begun = watch::Receiver<HashSet<String>>;

/// One layer to unpack.
struct Layer {
    image: Arc<Image>,
    index: usize,
    writer: LayerWriter,
}

/// Held until the thread that unpacks is done, even when nobody waits for it any more.
struct Hold {
    _alone: OwnedMutexGuard<()>,
    _place: OwnedSemaphorePermit,
}

impl Images {
    /// Makes sure that all layers of an image are unpacked; returns the key of the topmost, `None` for an image without
    /// layers.
    pub(crate) async fn unpack(
        &self,
        image: &Image,
        progress: Option<&ProgressSender>,
    ) -> Result<Option<String>> {
        let say = |layer: &str, what: &str| {
            if let Some(progress) = progress {
                progress.send(Progress::of(layer, what));
            }
        };
        self.unpack_layers(&Arc::new(image.clone()), &say, None).await?;
        self.settle_behind();
        Ok(image.chain_ids().last().map(ToString::to_string))
    }

    /// As [`Self::unpack`], for an image that is being pulled. A failure is not final: the download may start over.
    pub(super) async fn unpack_arriving(
        &self,
        image: &Arc<Image>,
        arrival: &Arrival<'_>,
        begun: Begun,
    ) -> Result<()> {
        let say = |layer: &str, what: &str| arrival.unpacked(layer, what);
        self.unpack_layers(image, &say, Some(begun)).await
    }

    async fn unpack_layers(
        &self,
        image: &Arc<Image>,
        tell: &(dyn Fn(&str, &str) + Sync),
        mut begun: Option<Begun>,
    ) -> Result<()> {
        let chain: Vec<String> = image.chain_ids().iter().map(ToString::to_string).collect();
        let places = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
        let mut tasks: JoinSet<Result<usize>> = JoinSet::new();
        let say = |index: usize, what: &str| tell(image.layers[index].digest.short(), what);
        for (index, chain_id) in chain.iter().enumerate() {
            if let Some(begun) = &mut begun {
                let digest = image.layers[index].digest.to_string();
                if begun.wait_for(|digests| digests.contains(&digest)).await.is_err() {
                    break;
                }
            }
            let place = Arc::clone(&places).acquire_owned().await.map_err(closed)?;
            // Before the locks: a layer only waits for one that has its place already.
            let stream = StreamPlace::take().await?;
            let alone = self.lock_of(chain_id).lock_owned().await;
            let key = SnapshotKey::parse(chain_id.clone())?;
            if self.0.storage.snapshots().exists(&key) {
                say(index, "Pull complete");
                continue;
            }
            say(index, "Extracting");
            let parent = index.checked_sub(1).map(|below| SnapshotKey::parse(&*chain[below]));
            let parent = parent.transpose()?;
            // Here, not in the task: a layer can only stand on one that is being prepared already.
            let writer = self.blocking(move |this| {
                Ok(this.0.storage.snapshots().prepare_layer(&key, parent.as_ref())?)
            });
            let layer = Layer { image: Arc::clone(image), index, writer: writer.await? };
            let (this, hold) = (self.clone(), Hold { _alone: alone, _place: place });
            tasks.spawn(stream.run(move || {
                let unpacked = this.unpack_layer(layer);
                drop(hold);
                unpacked.map(|()| index)
            }));
        }
        let mut failure: Option<Error> = None;
        while let Some(done) = tasks.join_next().await {
            match done.map_err(closed).and_then(|done| done) {
                Ok(index) => say(index, "Pull complete"),
                // Layers above fail because one below did: the cause is what is not `NotFound`.
                Err(error) => {
                    let is_cause = failure
                        .as_ref()
                        .is_none_or(|earlier| earlier.kind() == ErrorKind::NotFound);
                    failure = if is_cause { Some(error) } else { failure };
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn unpack_layer(&self, layer: Layer) -> Result<()> {
        let Layer { image, index, mut writer } = layer;
        let (blob, diff_id) = (&image.layers[index], &image.diff_ids[index]);
        let unpacked = || -> Result<()> {
            let mut reader = self.0.store.layer(blob, diff_id)?;
            let options = ApplyOptions::for_compressed_size(blob.size);
            if blob.size < SMALL_LAYER_BYTES {
                writer.apply(&mut reader, &options)?;
            } else {
                read_ahead(&mut reader, |ahead| writer.apply(ahead, &options))?;
            }
            // The end of the stream has verified both digests; nothing unverified becomes visible.
            reader.finish()?;
            // The blob is durable, so a layer that a power cut takes away can be made again from it.
            writer.commit(Durability::Later)?;
            Ok(())
        };
        unpacked().map_err(|error| {
            let advice = if error.kind() == ErrorKind::Exhausted {
                let root = self.0.storage.path().display();
                format!(" below {root}: free space on that file system and try again")
            } else {
                String::new()
            };
            error.context(format!("unpack layer {}{advice}", blob.digest))
        })
    }

    /// Syncs unpacked layers to disk, without making anybody wait.
    pub(crate) fn settle_behind(&self) {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let settled = this.blocking(|this| Ok(this.0.storage.snapshots().settle()?));
            if let Err(error) = settled.await {
                tracing::error!("bring layers to disk: {}", error.report());
            }
        });
    }

    /// Deletes removed snapshots without making anybody wait.
    pub(crate) fn sweep_behind(&self) {
        self.0.sweeper.sweep(self.0.storage.snapshots().clone());
    }

    /// Unpacks again what a power cut took away from under a container.
    ///
    /// # Errors
    ///
    /// The layers' content is gone too.
    pub(crate) async fn restore_layers(&self, record: &ContainerRecord) -> Result<()> {
        let Some(top) = &record.parent_layer else { return Ok(()) };
        if self.0.storage.snapshots().exists(&SnapshotKey::parse(top.clone())?) {
            return Ok(());
        }
        tracing::warn!(container = %record.id, "its layers are gone; unpacking them again");
        let manifest = record.manifest.clone();
        let image = self.blocking(move |this| this.image_by_manifest(&manifest)).await?;
        self.unpack(&image, None).await.map(drop)
    }
}

fn closed(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Io, "unpack a layer: the task was cut off").with_source(source)
}

/// Keeps removals away while a new container takes hold of its layers.
#[derive(Debug)]
pub(crate) struct Using<'a> {
    _shared: tokio::sync::RwLockReadGuard<'a, ()>,
}

/// See [`Images::keep_layers`].
#[derive(Debug)]
pub(super) struct Kept {
    images: Images,
    chain: Vec<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut arriving = self.images.arriving();
        for id in &self.chain {
            if let Some(count) = arriving.get_mut(id) {
                *count -= 1;
            }
        }
        arriving.retain(|_, count| *count > 0);
    }
}

impl Images {
    /// Until the guard is dropped no layer is removed.
    pub(crate) async fn using(&self) -> Using<'_> {
        Using { _shared: self.0.removal.read().await }
    }

    /// Keeps the layers of an image that has no name yet from being removed as unused.
    pub(super) fn keep_layers(&self, image: &Image) -> Kept {
        let chain: Vec<String> = image.chain_ids().iter().map(ToString::to_string).collect();
        let mut arriving = self.arriving();
        for id in &chain {
            *arriving.entry(id.clone()).or_insert(0) += 1;
        }
        drop(arriving);
        Kept { images: self.clone(), chain }
    }

    pub(super) fn arriving(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the removal of an image would have done, had a power cut not undone it.
    pub(crate) async fn remove_unused_layers(&self) -> Result<()> {
        let _alone = self.0.removal.write().await;
        self.blocking(Self::sweep_layers).await.map(drop)
    }

    /// The layers of all images, of those that arrive, and the topmost ones of containers.
    pub(super) fn needed_layers(&self) -> Result<BTreeSet<String>> {
        let mut needed = BTreeSet::new();
        for named in self.all()? {
            needed.extend(named.image.chain_ids().iter().map(ToString::to_string));
        }
        needed.extend(self.arriving().keys().cloned());
        needed.extend(
            self.0.table.views().iter().filter_map(|view| view.record.parent_layer.clone()),
        );
        Ok(needed)
    }

    /// Removes snapshots of layers that no image and no container stands on.
    pub(super) fn sweep_layers(&self) -> Result<Vec<String>> {
        let mut needed = self.needed_layers()?;
        let snapshots = self.0.storage.snapshots();
        let mut removed = Vec::new();
        // Children first: a layer with another on top cannot go.
        loop {
            let list = snapshots.list();
            let parents: BTreeSet<&str> = list
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
                match snapshots.remove(&key) {
                    Ok(()) => removed.push(key.as_str().to_owned()),
                    // Another layer has just been started on it, or it is gone already.
                    Err(error)
                        if matches!(
                            error.kind(),
                            brig_storage::ErrorKind::Conflict | brig_storage::ErrorKind::NotFound
                        ) =>
                    {
                        needed.insert(key.as_str().to_owned());
                    }
                    Err(source) => {
                        let error = Error::from(source);
                        return Err(error.context("remove layers that nothing uses"));
                    }
                }
            }
        }
    }
}
