//! Loading archives.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use serde::Deserialize;

use super::tar_reader::{Entry, Kind, TarReader};
use crate::content::Acquired;
use crate::digest::Digest;
use crate::image::parse_config;
use crate::layer::{Bounded, Compression};
use crate::lease::Lease;
use crate::manifest::{
    CONFIG_LIMIT, Descriptor, LAYER_LIMIT, MANIFEST_LIMIT, Manifest, media_type,
};
use crate::reference::Reference;
use crate::store::{Store, name_of};
use crate::{Error, Result, document};

/// Largest `manifest.json` and `index.json`, in bytes.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// Links followed from one name.
const LINK_DEPTH: usize = 8;

/// An image that came with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Its names; none if the archive gave none.
    pub references: Vec<Reference>,
    /// Its manifest or index.
    pub target: Descriptor,
}

/// Loads every image of a Docker or OCI archive into the store and names them as the archive says.
///
/// Either all images of the archive are named or, on an error, none; content without a name goes with the next garbage
/// collection.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything that is not a sound archive of images,
/// [`Integrity`](crate::ErrorKind::Integrity) if content does not match its digest,
/// [`Exhausted`](crate::ErrorKind::Exhausted) if the disk is full.
pub fn load(store: &Store, archive: impl Read) -> Result<Vec<Loaded>> {
    load_under(&store.lease()?, archive)
}

/// The same under a lease of the caller's, which goes on protecting what was loaded: against the removal, at the same
/// moment, of an image with the same content. Who still needs an image without names [keeps](Store::keep) it once more
/// before letting the lease go.
///
/// # Errors
/// As [`load`].
pub fn load_under(lease: &Lease, archive: impl Read) -> Result<Vec<Loaded>> {
    let store = lease.store();
    let decoder = Bounded::new(archive).map_err(cut_short)?;
    let mut loader = Loader { lease, contents: Contents::default() };
    let mut reader = TarReader::new(decoder);
    while let Some(entry) = reader.next()? {
        loader.take(entry, &mut reader)?;
    }
    let mut loaded = Vec::new();
    if let Some(index) = loader.contents.index.take() {
        loader.load_layout(&index, &mut loaded)?;
    }
    if let Some(manifest) = loader.contents.manifest.take() {
        loader.load_docker(&manifest, &mut loaded)?;
    }
    if loaded.is_empty() {
        return Err(Error::invalid(
            "read image archive: it holds no image (neither index.json nor manifest.json lists one)",
        ));
    }
    for image in &loaded {
        // Also what was there before: the lease shall protect it.
        lease.protect([&image.target.digest])?;
        store.keep(&image.target)?;
        for reference in &image.references {
            store.tag(reference, &image.target)?;
        }
    }
    Ok(loaded)
}

/// What was found in the archive.
#[derive(Default)]
struct Contents {
    files: HashMap<String, File>,
    links: HashMap<String, String>,
    index: Option<Vec<u8>>,
    manifest: Option<Vec<u8>>,
}

#[derive(Clone)]
struct File {
    digest: Digest,
    size: u64,
    compression: Compression,
}

struct Loader<'a> {
    lease: &'a Lease,
    contents: Contents,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Loader<'_> {
    fn take(&mut self, entry: Entry, reader: &mut TarReader<impl Read>) -> Result<()> {
        match entry.kind {
            Kind::Directory => {}
            Kind::File if is_ignored(&entry.path) => {}
            Kind::Link(target) => {
                self.contents.links.insert(entry.path, target);
            }
            Kind::File if entry.path == "index.json" => {
                set_once(&mut self.contents.index, &entry.path, reader.read_all(DOCUMENT_LIMIT)?)?;
            }
            Kind::File if entry.path == "manifest.json" => {
                set_once(
                    &mut self.contents.manifest,
                    &entry.path,
                    reader.read_all(DOCUMENT_LIMIT)?,
                )?;
            }
            Kind::File => {
                let file = match blob_name(&entry.path) {
                    Some(digest) => self.store_named(digest, entry.size, reader)?,
                    None => self.store_unnamed(reader)?,
                };
                self.contents.files.insert(entry.path, file);
            }
        }
        Ok(())
    }

    /// Stores a file of `blobs/`, whose name is its digest.
    fn store_named(&self, digest: Digest, size: u64, reader: &mut impl Read) -> Result<File> {
        let target = Descriptor::new("", digest.clone(), size);
        let Acquired::Writer(mut writer) = self.lease.writer(&target)? else {
            // Present, or arriving by another way: the bytes here are checked all the same.
            let file = self.store_unnamed(reader)?;
            return match file.digest == digest {
                true => Ok(file),
                false => Err(wrong_content(&digest, &file.digest)),
            };
        };
        writer.restart()?;
        let mut compression = None;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = reader.read(&mut buffer).map_err(cut_short)?;
            if count == 0 {
                break;
            }
            compression.get_or_insert_with(|| Compression::detect(&buffer[..count]));
            writer.append(&buffer[..count])?;
        }
        writer.commit()?;
        Ok(File { digest, size, compression: compression.unwrap_or(Compression::None) })
    }

    fn store_unnamed(&self, reader: &mut impl Read) -> Result<File> {
        let mut writer = self.lease.anonymous()?;
        let mut start = Vec::with_capacity(4);
        reader.by_ref().take(4).read_to_end(&mut start).map_err(cut_short)?;
        let compression = Compression::detect(&start);
        let mut rest = start.as_slice().chain(reader);
        let copied = io::copy(&mut rest, &mut writer);
        copied.map_err(|source| {
            let ingest = self.lease.store().blobs().ingest();
            match source.kind() {
                io::ErrorKind::UnexpectedEof => cut_short(source),
                _ => Error::io("write archive content into", &ingest, source),
            }
        })?;
        let (digest, size) = self.lease.commit(writer)?;
        Ok(File { digest, size, compression })
    }

    /// Takes the images that an OCI layout's index lists.
    fn load_layout(&self, bytes: &[u8], loaded: &mut Vec<Loaded>) -> Result<()> {
        let layout: Layout = document::parse("index.json of archive", bytes, 16 << 20)?;
        let mut names: BTreeMap<usize, Vec<Reference>> = BTreeMap::new();
        let mut targets: Vec<Descriptor> = Vec::new();
        for entry in &layout.manifests {
            if !(entry.is_manifest() || entry.is_index()) || entry.is_attestation() {
                continue;
            }
            self.check_image(entry)?;
            let known = targets.iter().position(|target| target.digest == entry.digest);
            let position = known.unwrap_or_else(|| {
                let platform = entry.platform.clone();
                let plain = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
                targets.push(Descriptor { platform, ..plain });
                targets.len() - 1
            });
            names.entry(position).or_default().extend(name_of(entry));
        }
        for (position, target) in targets.into_iter().enumerate() {
            let references = names.remove(&position).unwrap_or_default();
            loaded.push(Loaded { references, target });
        }
        Ok(())
    }

    /// An image of a layout must be complete for at least one platform, and sound.
    fn check_image(&self, target: &Descriptor) -> Result<()> {
        let store = self.lease.store();
        let manifests = store.manifests(target)?;
        if manifests.is_empty() {
            let digest = &target.digest;
            return Err(Error::invalid(format!(
                "read image archive: it lists image {digest} but does not contain it"
            )));
        }
        for manifest in manifests {
            let Manifest::Image(image) = store.manifest(&manifest)? else { continue };
            let config = store.blobs().read(&image.config.digest, CONFIG_LIMIT)?;
            crate::Image::parse(manifest.clone(), (*image).clone(), &config)?;
            if let Some(layer) = image.layers.iter().find(|l| !store.blobs().contains(&l.digest)) {
                return Err(missing(&layer.digest.to_string()));
            }
        }
        Ok(())
    }

    /// Takes the images of Docker's `manifest.json`, building an OCI manifest for those that have none.
    fn load_docker(&self, bytes: &[u8], loaded: &mut Vec<Loaded>) -> Result<()> {
        let entries: Vec<DockerEntry> =
            document::parse("manifest.json of archive", bytes, 16 << 20)?;
        for entry in entries {
            let tags = entry.repo_tags.as_deref().unwrap_or_default();
            let tags = tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>>>()?;
            let config = self.find(&entry.config)?;
            let known = loaded.iter().position(|image| self.has_config(image, &config.digest));
            let position = match known {
                Some(position) => position,
                None => {
                    let target = self.build_manifest(&config, entry.layers.as_deref())?;
                    loaded.push(Loaded { references: Vec::new(), target });
                    loaded.len() - 1
                }
            };
            let references = &mut loaded[position].references;
            for tag in tags {
                if !references.contains(&tag) {
                    references.push(tag);
                }
            }
        }
        Ok(())
    }

    fn has_config(&self, image: &Loaded, config: &Digest) -> bool {
        let store = self.lease.store();
        let manifests = store.manifests(&image.target).unwrap_or_default();
        manifests.iter().any(|m| store.image_id(m).is_ok_and(|id| id == *config))
    }

    fn build_manifest(&self, config: &File, layers: Option<&[String]>) -> Result<Descriptor> {
        let layers = layers.unwrap_or_default();
        if layers.len() > LAYER_LIMIT {
            return Err(Error::invalid(format!(
                "read image archive: an image has more than {LAYER_LIMIT} layers"
            )));
        }
        let bytes = self.lease.store().blobs().read(&config.digest, CONFIG_LIMIT)?;
        let parsed = parse_config(&bytes)?;
        if parsed.diff_ids.len() != layers.len() {
            return Err(Error::integrity(format!(
                "read image archive: image {} has {} layers but its configuration names {}",
                config.digest,
                layers.len(),
                parsed.diff_ids.len()
            )));
        }
        let mut descriptors = Vec::with_capacity(layers.len());
        for (layer, diff_id) in layers.iter().zip(&parsed.diff_ids) {
            let file = self.find(layer)?;
            let media_type = match file.compression {
                Compression::None if file.digest != *diff_id => {
                    return Err(wrong_content(diff_id, &file.digest));
                }
                Compression::None => media_type::OCI_LAYER,
                Compression::Gzip => media_type::OCI_LAYER_GZIP,
                Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            };
            descriptors.push(Descriptor::new(media_type, file.digest, file.size));
        }
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config,
            "layers": descriptors,
        });
        let bytes = manifest.to_string().into_bytes();
        debug_assert!(bytes.len() <= MANIFEST_LIMIT);
        let target = self.lease.put(media_type::OCI_MANIFEST, &bytes)?;
        Ok(Descriptor { platform: Some(parsed.platform), ..target })
    }

    /// The file called `name`, through links within the archive.
    fn find(&self, name: &str) -> Result<File> {
        let mut name = name.trim_start_matches("./").to_owned();
        for _ in 0..LINK_DEPTH {
            if let Some(file) = self.contents.files.get(&name) {
                return Ok(file.clone());
            }
            match self.contents.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        Err(missing(&name))
    }
}

/// Readers that take the first of two and readers that take the last would load different images.
fn set_once(place: &mut Option<Vec<u8>>, path: &str, bytes: Vec<u8>) -> Result<()> {
    match place.replace(bytes) {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!("read image archive: it has {path} twice"))),
    }
}

/// Files that carry nothing: the layout's version, and leftovers of Docker's first format.
fn is_ignored(path: &str) -> bool {
    matches!(path, "oci-layout" | "repositories") || path.ends_with("/VERSION")
}

/// The digest that a path in `blobs/` claims.
fn blob_name(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("read image archive: it refers to {name} but does not contain it"))
}

fn wrong_content(wanted: &Digest, found: &Digest) -> Error {
    Error::integrity(format!(
        "read image archive: content that should be {wanted} hashes to {found}"
    ))
}

fn cut_short(source: io::Error) -> Error {
    let attempt = "read image archive: it is damaged or cut short";
    let caused = |source| Error::caused(crate::ErrorKind::InvalidInput, attempt, source);
    Error::recover(source).unwrap_or_else(caused)
}
