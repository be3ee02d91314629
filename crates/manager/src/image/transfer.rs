//! Pull, push and load: the transfers that report progress.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brig_images::registry::{
    BlobKind, BlobProgress, BlobState, Credential, Progress as News, PullOptions, Pulled,
    PushOptions,
};
use brig_images::{Descriptor, Image, ImageRecord, PlatformChoice, Reference, archive};
use tokio::sync::{mpsc, watch};

use super::Images;
use super::arrival::Arrival;
use super::unpack::Kept;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{self, ByteStream, Progress, ProgressSender};

/// Images of one pull whose layers wait to be unpacked.
const ANNOUNCED_MAX: usize = 16;

impl Images {
    pub(super) async fn pull_now(
        &self,
        reference: Reference,
        platform: PlatformChoice,
        credential: Option<Credential>,
        sender: ProgressSender,
    ) -> Result<()> {
        let before = self.blocking(|this| Ok(this.0.store.images()?)).await?;
        let pulled = self.pull_whole(&reference, platform, credential, &sender).await;
        if let Err(error) = &pulled
            && matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::Integrity)
        {
            // Unlike after a broken connection, what came is of no use to the next attempt.
            self.give_back(&reference, before).await;
        }
        pulled.map_err(|error| naming(&reference, error))
    }

    async fn pull_whole(
        &self,
        reference: &Reference,
        platform: PlatformChoice,
        credential: Option<Credential>,
        sender: &ProgressSender,
    ) -> Result<()> {
        let options = PullOptions { platform, credential };
        // Nothing keeps removals away meanwhile: a download may take minutes. An image that is removed as soon as it has
        // its name ends the pull with an error, and its layers go with the next removal.
        let (pulled, _kept) = self.fetch(reference, &options, sender).await?;
        let mut id = pulled.target.digest.to_string();
        for manifest in &pulled.manifests {
            let image = self.image_for(manifest.clone()).await?;
            id = image.id.to_string();
            self.unpack(&image, Some(sender)).await?;
        }
        sender.send(Progress::status(format!("Digest: {}", pulled.target.digest)));
        let outcome =
            if pulled.changed { "Downloaded newer image for" } else { "Image is up to date for" };
        sender.send(Progress::status(format!("Status: {outcome} {}", pulled.reference.familiar())));
        self.publish("pull", &id, &pulled.reference.familiar());
        Ok(())
    }

    /// Downloads, and unpacks what comes as it comes. What of that fails is done again when all is there. The unpacked
    /// layers are kept from removal as long as the guards live.
    async fn fetch(
        &self,
        reference: &Reference,
        options: &PullOptions,
        sender: &ProgressSender,
    ) -> Result<(Pulled, Vec<Kept>)> {
        let first = AtomicBool::new(true);
        let arrival = Arrival::new(sender);
        let arrival = &arrival;
        let (begun, begun_layers) = watch::channel(HashSet::new());
        let (announce, mut announced) = mpsc::channel::<Arc<Image>>(ANNOUNCED_MAX);
        let observer = move |news: News| match news {
            News::Resolved { reference, .. } if first.swap(false, Ordering::Relaxed) => {
                let status = format!("Pulling from {}", reference.path());
                sender.send(Progress::of(reference.version(), status));
            }
            // When there are too many at once, the rest is unpacked at the end.
            News::Image(image) => drop(announce.try_send(image)),
            News::Blob(blob) => {
                if blob.kind == BlobKind::Layer && has_begun(&blob.state) {
                    begun.send_if_modified(|digests| digests.insert(blob.digest.to_string()));
                }
                arrival.downloaded(&blob);
            }
            _ => {}
        };
        let download = async move {
            // The observer goes with the pull, and its channels with it: nobody waits for what will not come any more.
            let observer = observer;
            self.0.client.pull(reference, options, &self.0.store, &observer).await
        };
        let unpack = async {
            let mut kept = Vec::new();
            while let Some(image) = announced.recv().await {
                let begun = begun_layers.clone();
                kept.push(self.keep_layers(&image));
                if let Err(error) = self.unpack_arriving(&image, arrival, begun).await {
                    tracing::debug!("unpack {} while it comes: {}", image.id, error.report());
                }
            }
            kept
        };
        let (pulled, kept) = tokio::join!(download, unpack);
        Ok((pulled?, kept))
    }

    /// Undoes a pull that failed: the name stands for what it stood for before, and what nothing needs goes.
    async fn give_back(&self, reference: &Reference, before: Vec<ImageRecord>) {
        let _alone = self.0.removal.write().await;
        let name = reference.clone();
        let undone = self.blocking(move |this| {
            let store = &this.0.store;
            let named = |records: &[ImageRecord]| {
                let mut named = records.iter().filter(|record| is_named(record, &name));
                named.next().map(|record| record.target.clone())
            };
            if let Some(target) = named(&store.images()?) {
                let is_new = before.iter().all(|record| record.target.digest != target.digest);
                if is_new && this.names_of(&target.digest)?.len() == 1 {
                    store.remove(&target.digest)?;
                } else {
                    store.untag(&name)?;
                }
            }
            if let Some(target) = named(&before) {
                store.tag(&name, &target)?;
            }
            this.sweep_layers()?;
            super::remove::collect(this)
        });
        if let Err(error) = undone.await {
            tracing::warn!("undo a failed pull: {}", error.report());
        }
        self.sweep_behind();
    }

    async fn image_for(&self, manifest: Descriptor) -> Result<Image> {
        self.blocking(move |this| this.image_of(&manifest)).await
    }

    pub(super) async fn push_now(
        &self,
        reference: Reference,
        options: PushOptions,
        sender: ProgressSender,
    ) -> Result<()> {
        let repository = reference.repository();
        sender.send(Progress::status(format!("The push refers to repository [{repository}]")));
        let observer = |news: News| {
            if let News::Blob(blob) = news {
                sender.send_all(pushing(&blob));
            }
        };
        let pushed = self.0.client.push(&reference, &options, &self.0.store, &observer).await?;
        let (digest, size) = (pushed.target.digest.to_string(), pushed.target.size);
        let tag = reference.version();
        sender.send(Progress::status(format!("{tag}: digest: {digest} size: {size}")));
        let aux = serde_json::json!({ "Tag": tag, "Digest": digest, "Size": size });
        sender.send(Progress { aux: Some(aux), ..Progress::default() });
        self.publish("push", &digest, &reference.familiar());
        Ok(())
    }

    pub(super) async fn load_now(&self, archive: ByteStream, sender: ProgressSender) -> Result<()> {
        let reader = stream::reader(archive);
        // As with a pull, nothing keeps removals away while the client sends; the lease keeps the content.
        let (lease, loaded) = self
            .blocking(move |this| {
                let lease = this.0.store.lease()?;
                let loaded = archive::load_under(&lease, reader)?;
                Ok((lease, loaded))
            })
            .await?;
        if loaded.is_empty() {
            return Err(Error::invalid("the archive holds no image"));
        }
        for loaded in loaded {
            let image = self.image_for(loaded.target.clone()).await?;
            let _kept = self.keep_layers(&image);
            self.unpack(&image, None).await?;
            if loaded.references.is_empty() {
                // The same image may have been removed meanwhile: it is loaded after that, and is there.
                let target = loaded.target;
                self.blocking(move |this| this.0.store.keep(&target).map_err(Error::from)).await?;
            }
            let id = image.id.to_string();
            if loaded.references.is_empty() {
                let text = format!("Loaded image ID: {id}\n");
                sender.send(Progress { stream: Some(text), ..Progress::default() });
                self.publish("load", &id, &id);
            }
            for reference in &loaded.references {
                let text = format!("Loaded image: {}\n", reference.familiar());
                sender.send(Progress { stream: Some(text), ..Progress::default() });
                self.publish("load", &id, &reference.familiar());
            }
        }
        self.blocking(move |_| {
            drop(lease);
            Ok(())
        })
        .await
    }
}

/// Whether a layer can be read: it is there, or some of it.
fn has_begun(state: &BlobState) -> bool {
    use BlobState::{Complete, Exists, Transferring};
    matches!(state, Transferring { .. } | Complete | Exists)
}

fn is_named(record: &ImageRecord, name: &Reference) -> bool {
    record.reference.as_ref().is_some_and(|own| own.to_string() == name.to_string())
}

/// Puts the image's name before an error that does not tell it.
fn naming(reference: &Reference, error: Error) -> Error {
    let name = reference.familiar();
    if error.report().contains(&name) { error } else { error.context(format!("pull {name}")) }
}

/// `library/busybox` for the default registry, `host/path` for others.
pub(super) fn downloading(blob: &BlobProgress) -> Vec<Progress> {
    let id = blob.digest.short();
    match &blob.state {
        BlobState::Waiting => vec![Progress::of(id, "Pulling fs layer")],
        BlobState::Transferring { done, total } => vec![measured(id, "Downloading", *done, *total)],
        BlobState::Retrying { after, reason } => {
            vec![Progress::of(id, format!("Retrying in {} seconds: {reason}", after.as_secs()))]
        }
        BlobState::Verifying => vec![Progress::of(id, "Verifying Checksum")],
        BlobState::Complete => vec![Progress::of(id, "Download complete")],
        BlobState::Exists => vec![Progress::of(id, "Already exists")],
        _ => Vec::new(),
    }
}

fn pushing(blob: &BlobProgress) -> Vec<Progress> {
    if blob.kind != BlobKind::Layer {
        return Vec::new();
    }
    let id = blob.digest.short();
    match &blob.state {
        BlobState::Waiting => vec![Progress::of(id, "Preparing")],
        BlobState::Transferring { done, total } => vec![measured(id, "Pushing", *done, *total)],
        BlobState::Retrying { after, reason } => {
            vec![Progress::of(id, format!("Retrying in {} seconds: {reason}", after.as_secs()))]
        }
        BlobState::Complete => vec![Progress::of(id, "Pushed")],
        BlobState::Exists => vec![Progress::of(id, "Layer already exists")],
        BlobState::Mounted { from } => vec![Progress::of(id, format!("Mounted from {from}"))],
        _ => Vec::new(),
    }
}

fn measured(id: &str, status: &str, done: u64, total: u64) -> Progress {
    Progress { current_bytes: Some(done), total_bytes: Some(total), ..Progress::of(id, status) }
}
