//! New images: a container's changes as a layer, or an archive of a file system as an image of its own.
//!
//! The layer is stored and unpacked before anything has a name; a failure leaves content that the next collection takes.

use brig_images::{Descriptor, Image, Lease, NewImage, Platform, Reference};
use brig_storage::SnapshotKey;
use futures_util::StreamExt as _;

use super::{Images, change};
use crate::container::now;
use crate::error::{Error, Result};
use crate::models::ContainerConfig;
use crate::stream::{self, ByteStream, Progress, ProgressSender, ProgressStream};

/// A container's changes to become an image.
#[derive(Debug)]
pub(crate) struct Commit {
    /// The manifest of the image that the container is of.
    pub(crate) manifest: String,
    pub(crate) snapshot: SnapshotKey,
    /// What the runtime made to mount something on it.
    pub(crate) mount_points: &'static [&'static str],
    pub(crate) config: ContainerConfig,
    pub(crate) author: Option<String>,
    pub(crate) comment: Option<String>,
    /// The container's command line.
    pub(crate) created_by: String,
    pub(crate) reference: Option<Reference>,
}

/// Where an imported archive comes from.
pub enum ImportSource {
    /// The archive itself.
    Archive(ByteStream),
    /// It is downloaded from here.
    Url(String),
}

impl std::fmt::Debug for ImportSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archive(_) => f.write_str("Archive"),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
        }
    }
}

/// A file system to become an image.
#[derive(Debug)]
pub struct ImportRequest {
    /// The archive: tar, plain or compressed with gzip or zstd.
    pub source: ImportSource,
    /// The image's name: `REPOSITORY[:TAG]`; none when empty.
    pub reference: String,
    /// Why, for the image's history.
    pub message: String,
    /// Docker's change instructions.
    pub changes: Vec<String>,
    /// `os/arch[/variant]`; this machine's when absent.
    pub platform: Option<String>,
}

impl Images {
    /// Makes an image of what a container changed. Answers the image and the manifest's record.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Image> {
        let lease = self.blocking(|this| Ok(this.0.store.lease()?)).await?;
        let reference = commit.reference.clone();
        let (lease, target) = self
            .blocking(move |this| {
                let base = this.image_by_manifest(&commit.manifest)?;
                let snapshots = this.0.storage.snapshots();
                let layer = lease.put_layer(|mut output| {
                    let (key, points) = (&commit.snapshot, commit.mount_points);
                    snapshots.diff_tar(key, points, &mut output).map_err(Error::from)
                })?;
                let target = lease.put_image(&NewImage {
                    base: Some(&base),
                    layer,
                    platform: base.platform.clone(),
                    config: change::to_image_config(&commit.config),
                    author: commit.author,
                    comment: commit.comment,
                    created: now(),
                    created_by: Some(commit.created_by),
                })?;
                Ok((lease, target))
            })
            .await?;
        self.name(lease, target, reference).await
    }

    /// Makes an image of an archive of a file system.
    ///
    /// # Errors
    ///
    /// The name, platform or a change is malformed. What goes wrong later ends the stream.
    pub async fn import(&self, request: ImportRequest) -> Result<ProgressStream> {
        let reference = named(&request.reference)?;
        let platform = match request.platform.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Platform::parse(text)?,
            None => Platform::host(),
        };
        let mut config = ContainerConfig::default();
        change::apply(&mut config, &ContainerConfig::default(), &request.changes)?;
        let archive = match request.source {
            ImportSource::Archive(archive) => archive,
            ImportSource::Url(url) => {
                let url = if url.contains("://") { url } else { format!("http://{url}") };
                let body = self.0.client.download(&url).await?;
                body.map(|piece| piece.map_err(Error::from)).boxed()
            }
        };
        let this = self.clone();
        let comment = Some(request.message).filter(|message| !message.is_empty());
        Ok(stream::progress(&self.0.tasks, move |sender| async move {
            this.import_now(archive, reference, platform, config, comment, sender).await
        }))
    }

    async fn import_now(
        &self,
        archive: ByteStream,
        reference: Option<Reference>,
        platform: Platform,
        config: ContainerConfig,
        comment: Option<String>,
        sender: ProgressSender,
    ) -> Result<()> {
        let reader = stream::reader(archive);
        let name = reference.as_ref().map(Reference::familiar);
        let (lease, target) = self
            .blocking(move |this| {
                let lease = this.0.store.lease()?;
                let layer = lease.put_layer_from(reader)?;
                let target = lease.put_image(&NewImage {
                    base: None,
                    layer,
                    platform,
                    config: change::to_image_config(&config),
                    author: None,
                    comment,
                    created: now(),
                    created_by: None,
                })?;
                Ok((lease, target))
            })
            .await?;
        let image = self.name(lease, target, reference).await?;
        let id = image.id.to_string();
        self.publish("import", &id, name.as_ref().unwrap_or(&id));
        sender.send(Progress::status(id));
        Ok(())
    }

    /// Unpacks a new image and gives it its name, if it has one.
    async fn name(
        &self,
        lease: Lease,
        target: Descriptor,
        reference: Option<Reference>,
    ) -> Result<Image> {
        let manifest = target.clone();
        let image = self.blocking(move |this| this.image_of(&manifest)).await?;
        // No removal may take for unused what has no name yet.
        let _kept = self.keep_layers(&image);
        self.unpack(&image, None).await?;
        self.blocking(move |this| {
            match &reference {
                Some(reference) => this.0.store.tag(reference, &target)?,
                None => this.0.store.keep(&target)?,
            }
            drop(lease);
            Ok(())
        })
        .await?;
        Ok(image)
    }
}

/// The name of a new image, which cannot hold a digest.
pub(crate) fn named(text: &str) -> Result<Option<Reference>> {
    if text.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    Ok(Some(reference))
}
