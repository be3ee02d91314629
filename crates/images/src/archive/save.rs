//! Saving archives.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::digest::{Algorithm, Digest};
use crate::manifest::{Descriptor, Manifest};
use crate::platform::PlatformChoice;
use crate::reference::Reference;
use crate::store::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Store};
use crate::{Error, ErrorKind, Image, Result};

/// An image to save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedImage {
    /// The manifest or index, as [`Store::resolve`] gives it.
    pub target: Descriptor,
    /// The names it shall have in the archive.
    pub references: Vec<Reference>,
}

/// Writes images as one archive that `docker load`, `podman load` and OCI tools read. Shared content is written once.
///
/// An index is saved as such if everything it lists is here and `platform` is [`PlatformChoice::All`]; else the one image
/// that suits is. The output is reproducible: same images, same bytes.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if content is missing, [`Integrity`](ErrorKind::Integrity) if it is damaged, and
/// what `output` reports.
pub fn save(
    store: &Store,
    images: &[SavedImage],
    platform: &PlatformChoice,
    output: impl Write,
) -> Result<()> {
    let mut plan = Plan::default();
    for image in images {
        plan.add(store, image, platform)?;
    }
    let mut archive = Builder::new(output);
    archive.mode(tar::HeaderMode::Deterministic);
    let mut writer = Writer { archive };
    for algorithm in Algorithm::ALL {
        let mut blobs =
            plan.blobs.iter().filter(|digest| digest.algorithm() == algorithm).peekable();
        if blobs.peek().is_some() {
            writer.directory("blobs/")?;
            writer.directory(&format!("blobs/{}/", algorithm.name()))?;
        }
        for digest in blobs {
            writer.blob(store, digest)?;
        }
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": crate::manifest::media_type::OCI_INDEX,
        "manifests": plan.entries,
    });
    writer.document("index.json", &index)?;
    writer.document("manifest.json", &serde_json::Value::Array(plan.docker))?;
    writer.document("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
    writer.archive.into_inner().and_then(|mut output| output.flush()).map_err(writing)
}

/// What goes into the archive.
#[derive(Default)]
struct Plan {
    blobs: BTreeSet<Digest>,
    entries: Vec<Descriptor>,
    docker: Vec<serde_json::Value>,
}

impl Plan {
    fn add(&mut self, store: &Store, image: &SavedImage, choice: &PlatformChoice) -> Result<()> {
        let single = match choice.single() {
            Some(platform) => Some(store.image(&image.target, &platform)?),
            None => None,
        };
        let target = match &single {
            Some(single) => &single.target,
            None => &image.target,
        };
        self.add_blobs(store, target)?;
        for manifest in store.manifests(target)? {
            let Manifest::Image(parsed) = store.manifest(&manifest)? else { continue };
            let config =
                store.blobs().read(&parsed.config.digest, crate::manifest::CONFIG_LIMIT)?;
            let loaded = Image::parse(manifest, *parsed, &config)?;
            self.docker.push(docker_entry(&loaded, &image.references));
        }
        let plain = Descriptor::new(&target.media_type, target.digest.clone(), target.size);
        if image.references.is_empty() {
            self.entries.push(plain.clone());
        }
        for reference in &image.references {
            let mut entry = plain.clone();
            let annotations = entry.annotations.get_or_insert_default();
            annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), reference.canonical());
            annotations.insert(ANNOTATION_REF_NAME.to_owned(), reference.version());
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Adds everything that `target` reaches; all of it must be here.
    fn add_blobs(&mut self, store: &Store, target: &Descriptor) -> Result<()> {
        let mut pending = vec![target.clone()];
        while let Some(next) = pending.pop() {
            if !store.blobs().contains(&next.digest) {
                return Err(Error::not_found(format!(
                    "save image {}: its content {} is not in the store; pull it again, with all platforms",
                    target.digest, next.digest
                )));
            }
            let new = self.blobs.insert(next.digest.clone());
            if new && (next.is_manifest() || next.is_index()) {
                pending.extend(store.manifest(&next)?.children().cloned());
            }
        }
        Ok(())
    }
}

fn docker_entry(image: &Image, references: &[Reference]) -> serde_json::Value {
    // Only tags: old readers take a digest in RepoTags for an error.
    let tags = references.iter().filter(|reference| reference.digest().is_none());
    let tags: Vec<String> = tags.map(Reference::familiar).collect();
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
    serde_json::json!({
        "Config": blob_path(&image.id),
        "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { tags.into() },
        "Layers": layers,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

struct Writer<W: Write> {
    archive: Builder<W>,
}

impl<W: Write> Writer<W> {
    fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, EntryType::Directory, 0o755, 0, io::empty())
    }

    fn document(&mut self, path: &str, document: &serde_json::Value) -> Result<()> {
        let bytes = document.to_string().into_bytes();
        self.entry(path, EntryType::Regular, 0o644, bytes.len() as u64, bytes.as_slice())
    }

    fn blob(&mut self, store: &Store, digest: &Digest) -> Result<()> {
        let file = store.blobs().open(digest)?;
        let size = store.blobs().size(digest).unwrap_or(0);
        self.entry(&blob_path(digest), EntryType::Regular, 0o644, size, file)
    }

    fn entry(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        size: u64,
        data: impl Read,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.archive.append_data(&mut header, path, data).map_err(writing)
    }
}

fn writing(source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Io,
    };
    Error::caused(kind, "write image archive", source)
}
