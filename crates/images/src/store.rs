//! The image store: a standard OCI image layout with names, plus what a living store needs.
//!
//! ```text
//! <root>/
//!   oci-layout                the layout's version
//!   index.json                every image: descriptor + its name in annotations; an entry without name is dangling
//!   blobs/<algorithm>/<hex>   see `content`
//!   ingest/                   see `content`
//!   leases/                   see `lease`
//!   lock                      flock: exclusive to change index.json or collect garbage, shared to add to a lease
//! ```
//!
//! Names are stored in full in `org.opencontainers.image.ref.name` (so that other tools can address them) and in
//! containerd's `io.containerd.image.name`. Readers of `index.json` take no lock: it is replaced atomically.
//!
//! Lock order: `lock`, then a lease's or an ingest file's lock. An index may lack the manifests of platforms that were not
//! pulled; every operation looks at what is present.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::content::{Blobs, create_dir, sync_dir, write_atomically};
use crate::digest::{Digest, is_lower_hex};
use crate::image::Image;
use crate::layer::LayerReader;
use crate::lease::Lease;
use crate::manifest::{
    CONFIG_LIMIT, Descriptor, INDEX_DEPTH, MANIFEST_LIMIT, Manifest, media_type,
};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::{Error, ErrorKind, Result, document};

/// Annotation of the OCI image specification that names an entry of a layout.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and Docker's annotation for an image's full name.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// Largest `index.json` that is read, in bytes: some 100,000 images.
const INDEX_FILE_LIMIT: usize = 64 << 20;
/// Manifests whose configuration digest is remembered.
const CACHE_LIMIT: usize = 4096;

/// An image store. Clones share it; several processes may open the same directory.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    blobs: Blobs,
    /// Manifest digest → configuration digest. Content never changes, so entries never go stale.
    ids: Mutex<HashMap<Digest, Digest>>,
}

/// One named or dangling image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageRecord {
    /// The name; `None` for an image that lost its last one.
    pub reference: Option<Reference>,
    /// The manifest or index.
    pub target: Descriptor,
}

impl ImageRecord {
    /// What people know it by: its name, or its digest where it has none.
    #[must_use]
    pub fn familiar(&self) -> String {
        match &self.reference {
            Some(reference) => reference.familiar(),
            None => self.target.digest.to_string(),
        }
    }
}

/// What a user's word for an image stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The name, when it was found by name.
    pub reference: Option<Reference>,
    /// The manifest or index of the record, as listed by [`Store::images`].
    pub target: Descriptor,
    /// The one manifest meant, when it was found by the id or digest of one of several platforms.
    pub manifest: Option<Descriptor>,
}

impl Resolved {
    /// What to hand to [`Store::image`]: the one manifest meant, else the record's target.
    #[must_use]
    pub fn selected(&self) -> &Descriptor {
        self.manifest.as_ref().unwrap_or(&self.target)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    #[serde(default = "index_media_type")]
    media_type: String,
    manifests: Vec<Descriptor>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

fn index_media_type() -> String {
    media_type::OCI_INDEX.to_owned()
}

impl Store {
    /// Opens the store at `root`, creating it if need be. An existing OCI image layout becomes a store.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`Exhausted`](ErrorKind::Exhausted), or [`Unsupported`](ErrorKind::Unsupported) for a
    /// layout of another version.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        create_dir(&root)?;
        let blobs = Blobs::create(&root)?;
        let store = Self(Arc::new(Inner { root, blobs, ids: Mutex::default() }));
        create_dir(&store.leases())?;
        let guard = store.lock_exclusive()?;
        let layout = store.0.root.join("oci-layout");
        match fs::read(&layout) {
            Ok(bytes) => check_layout(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sync_dir(&store.0.root.join("blobs"))?;
                write_atomically(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            }
            Err(source) => return Err(Error::io("read", &layout, source)),
        }
        if !store.index_path().exists() {
            store.write_index(&store.read_index()?)?;
        }
        drop(guard);
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The content, for reading.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Permission to add content. See [`Lease`].
    ///
    /// # Errors
    /// [`Exhausted`](ErrorKind::Exhausted) or [`Io`](ErrorKind::Io).
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(self)
    }

    /// All images, in the order they came.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `index.json` is damaged, or [`Io`](ErrorKind::Io).
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let index = self.read_index()?;
        Ok(index.manifests.into_iter().map(|entry| record(&entry)).collect())
    }

    /// Gives `target` a name, taking it from whatever had it. An image that thereby loses its last name stays, dangling.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if `target` is not in the store.
    pub fn tag(&self, reference: &Reference, target: &Descriptor) -> Result<()> {
        let key = reference.key();
        self.change_index(|entries| {
            if !self.blobs().contains(&target.digest) {
                return Err(Error::not_found(format!(
                    "tag {key}: its content {} is not in the store",
                    target.digest
                )));
            }
            if entries.iter().any(|e| is_named(e, &key) && e.digest == target.digest) {
                return Ok(false);
            }
            remove_name(entries, &key);
            // A dangling entry of the same image becomes the named one.
            entries.retain(|e| e.digest != target.digest || name_of(e).is_some());
            entries.push(entry(Some(&key), target));
            Ok(true)
        })
    }

    /// Keeps `target` without a name: it is listed as dangling.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if `target` is not in the store.
    pub fn keep(&self, target: &Descriptor) -> Result<()> {
        self.change_index(|entries| {
            if !self.blobs().contains(&target.digest) {
                let digest = &target.digest;
                return Err(Error::not_found(format!("keep {digest}: it is not in the store")));
            }
            if entries.iter().any(|entry| entry.digest == target.digest) {
                return Ok(false);
            }
            entries.push(entry(None, target));
            Ok(true)
        })
    }

    /// Removes a name and returns what it stood for. If that was the last name, the image stays, dangling;
    /// [`remove`](Self::remove) drops it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such name.
    pub fn untag(&self, reference: &Reference) -> Result<Descriptor> {
        let key = reference.key();
        let mut target = None;
        self.change_index(|entries| {
            target = remove_name(entries, &key);
            Ok(target.is_some())
        })?;
        target.ok_or_else(|| {
            Error::not_found(format!("remove name {}: no such image", reference.familiar()))
        })
    }

    /// Drops all names of the image `target` and returns them. Its content goes with the next
    /// [`collect_garbage`](Self::collect_garbage).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if no record has this target.
    pub fn remove(&self, target: &Digest) -> Result<Vec<Reference>> {
        let mut found = false;
        let mut names = Vec::new();
        self.change_index(|entries| {
            entries.retain(|entry| {
                let hit = entry.digest == *target;
                found |= hit;
                names.extend(name_of(entry).filter(|_| hit));
                !hit
            });
            Ok(found)
        })?;
        if found {
            Ok(names)
        } else {
            Err(Error::not_found(format!("remove image {target}: no such image")))
        }
    }

    /// Finds an image by name, `name@digest`, digest, id, or unique prefix of an id (with or without `sha256:`).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Conflict`](ErrorKind::Conflict) if a prefix fits several images, or
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `text` can be neither.
    pub fn resolve(&self, text: &str) -> Result<Resolved> {
        let records = self.images()?;
        let reference = Reference::parse(text);
        if let Ok(reference) = &reference
            && let Some(found) = self.resolve_name(&records, reference)?
        {
            return Ok(found);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(is_lower_hex) {
            if let Some(found) = self.resolve_id(&records, hex)? {
                return Ok(found);
            }
            return Err(Error::not_found(format!("find image {text}: no such image")));
        }
        let reference = reference?;
        Err(Error::not_found(format!("find image {}: no such image", reference.familiar())))
    }

    /// Loads the image at `target`: a manifest, or of an index the present one that suits `platform` best.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if nothing for the platform is here, and what [`Image::parse`] reports.
    pub fn image(&self, target: &Descriptor, platform: &Platform) -> Result<Image> {
        self.find_image(target, platform, 0)?.ok_or_else(|| {
            Error::not_found(format!(
                "load image {}: it is not in the store for platform {platform}; pull it with that platform",
                target.digest
            ))
        })
    }

    /// The manifests that are here of the image at `target`: itself, or those an index lists, without attestations.
    ///
    /// # Errors
    /// As [`image`](Self::image).
    pub fn manifests(&self, target: &Descriptor) -> Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        self.walk_manifests(target, 0, &mut found)?;
        Ok(found)
    }

    /// The id (digest of the configuration) of the image whose manifest is `manifest`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) or [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn image_id(&self, manifest: &Descriptor) -> Result<Digest> {
        if let Some(id) = self.ids().get(&manifest.digest) {
            return Ok(id.clone());
        }
        let Manifest::Image(image) = self.manifest(manifest)? else {
            let digest = &manifest.digest;
            return Err(Error::invalid(format!("read manifest {digest}: it is an index")));
        };
        let id = image.config.digest;
        let mut ids = self.ids();
        if ids.len() >= CACHE_LIMIT {
            ids.clear();
        }
        ids.insert(manifest.digest.clone(), id.clone());
        Ok(id)
    }

    /// Reads, verifies and parses a manifest or index.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Integrity`](ErrorKind::Integrity), and what [`Manifest::parse`] reports.
    pub fn manifest(&self, target: &Descriptor) -> Result<Manifest> {
        let bytes = self.blobs().read(&target.digest, MANIFEST_LIMIT)?;
        Manifest::parse(&bytes, Some(&target.media_type))
    }

    /// Opens a layer as the tar stream it is. `diff_id` is what that stream must hash to. A layer that this process is
    /// downloading is read as it comes: reads then wait for the network, and fail when the download does.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the layer is not here.
    pub fn layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<LayerReader> {
        let file = self.blobs().open_arriving(&layer.digest)?;
        LayerReader::new(file, layer.digest.clone(), Some(diff_id.clone()))
    }

    fn find_image(
        &self,
        target: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Option<Image>> {
        match self.manifest(target)? {
            Manifest::Image(manifest) => {
                let config = self.blobs().read(&manifest.config.digest, CONFIG_LIMIT)?;
                Image::parse(target.clone(), *manifest, &config).map(Some)
            }
            Manifest::Index(index) => {
                check_depth(target, depth)?;
                for candidate in index.candidates(platform) {
                    if !self.blobs().contains(&candidate.digest) {
                        continue;
                    }
                    let Some(image) = self.find_image(candidate, platform, depth + 1)? else {
                        continue;
                    };
                    if candidate.platform.is_some() || platform.rank(&image.platform).is_some() {
                        return Ok(Some(image));
                    }
                }
                Ok(None)
            }
        }
    }

    fn walk_manifests(
        &self,
        target: &Descriptor,
        depth: usize,
        found: &mut Vec<Descriptor>,
    ) -> Result<()> {
        if !self.blobs().contains(&target.digest) {
            return Ok(());
        }
        if target.is_manifest() {
            found.push(target.clone());
            return Ok(());
        }
        if let Manifest::Index(index) = self.manifest(target)? {
            check_depth(target, depth)?;
            for child in index.images() {
                self.walk_manifests(child, depth + 1, found)?;
            }
        }
        Ok(())
    }

    fn resolve_name(
        &self,
        records: &[ImageRecord],
        wanted: &Reference,
    ) -> Result<Option<Resolved>> {
        let key = wanted.key();
        let named = records.iter().find(|record| record.reference.as_ref() == Some(&key));
        if let Some(record) = named {
            let ImageRecord { reference, target } = record.clone();
            return Ok(Some(Resolved { reference, target, manifest: None }));
        }
        // `name@digest` also fits an image that is here under a tag of the same repository.
        let Some(digest) = wanted.digest() else { return Ok(None) };
        for record in records {
            let same = |name: &Reference| name.repository() == wanted.repository();
            if !record.reference.as_ref().is_some_and(same) {
                continue;
            }
            let manifests = self.manifests(&record.target)?;
            let manifest = manifests.into_iter().find(|manifest| manifest.digest == *digest);
            if record.target.digest == *digest || manifest.is_some() {
                let ImageRecord { reference, target } = record.clone();
                let manifest = manifest.filter(|manifest| manifest.digest != target.digest);
                return Ok(Some(Resolved { reference, target, manifest }));
            }
        }
        Ok(None)
    }

    fn resolve_id(&self, records: &[ImageRecord], prefix: &str) -> Result<Option<Resolved>> {
        // Image id → how to reach it. Digests of manifests and indexes count as ids of what they hold.
        let mut found: BTreeMap<Digest, Resolved> = BTreeMap::new();
        for record in records {
            let target = &record.target;
            let resolved =
                |manifest| Resolved { reference: None, target: target.clone(), manifest };
            if target.digest.hex().starts_with(prefix) {
                found.entry(target.digest.clone()).or_insert_with(|| resolved(None));
                continue;
            }
            for manifest in self.manifests(target).unwrap_or_default() {
                // One damaged image must not hide the others.
                let Ok(id) = self.image_id(&manifest) else { continue };
                if manifest.digest.hex().starts_with(prefix) || id.hex().starts_with(prefix) {
                    let selected = (manifest.digest != target.digest).then(|| manifest.clone());
                    found.entry(id).or_insert_with(|| resolved(selected));
                }
            }
        }
        if found.len() > 1 {
            let ids: Vec<&str> = found.keys().map(Digest::short).collect();
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "find image {prefix}: the prefix fits several: {}; give more of it",
                    ids.join(", ")
                ),
            ));
        }
        Ok(found.into_values().next())
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Digest>> {
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.0.root.join("leases")
    }

    fn index_path(&self) -> PathBuf {
        self.0.root.join("index.json")
    }

    fn read_index(&self) -> Result<IndexFile> {
        let path = self.index_path();
        match fs::read(&path) {
            Ok(bytes) => document::parse(&path.display().to_string(), &bytes, INDEX_FILE_LIMIT),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(IndexFile {
                schema_version: 2,
                media_type: index_media_type(),
                manifests: Vec::new(),
                rest: BTreeMap::new(),
            }),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    fn write_index(&self, index: &IndexFile) -> Result<()> {
        let bytes = serde_json::to_vec(index)
            .map_err(|source| Error::caused(ErrorKind::Io, "write index.json", source))?;
        write_atomically(&self.index_path(), &bytes)
    }

    /// Changes the entries under the exclusive lock; writes only if `change` says that it did something.
    fn change_index(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<bool>,
    ) -> Result<()> {
        let _guard = self.lock_exclusive()?;
        let mut index = self.read_index()?;
        if change(&mut index.manifests)? { self.write_index(&index) } else { Ok(()) }
    }

    pub(crate) fn lock_exclusive(&self) -> Result<StoreLock> {
        self.lock(FlockOperation::LockExclusive)
    }

    /// Keeps garbage collection, in this process or another, from running until the answer is dropped. Whoever keeps roots
    /// of its own (see [`collect_garbage_with`](Self::collect_garbage_with)) looks at them and changes them under this
    /// lock, so that no collection decides between the two. Many may hold it at once; hold it shortly.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the lock cannot be had.
    pub fn lock_shared(&self) -> Result<StoreLock> {
        self.lock(FlockOperation::LockShared)
    }

    fn lock(&self, operation: FlockOperation) -> Result<StoreLock> {
        let path = self.0.root.join("lock");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|source| Error::io("open", &path, source))?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(StoreLock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(source) => return Err(Error::io("lock", &path, source.into())),
            }
        }
    }
}

/// The store's lock, released when dropped.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

fn check_layout(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = document::parse("oci-layout", bytes, 4096)?;
    match layout.image_layout_version.starts_with("1.") {
        true => Ok(()),
        false => Err(Error::unsupported(format!(
            "open image layout: version {:?} is not supported",
            layout.image_layout_version
        ))),
    }
}

pub(crate) fn check_depth(target: &Descriptor, depth: usize) -> Result<()> {
    if depth < INDEX_DEPTH {
        return Ok(());
    }
    let digest = &target.digest;
    Err(Error::invalid(format!(
        "read index {digest}: indexes are nested deeper than {INDEX_DEPTH}"
    )))
}

/// The full name of an entry, if it has a valid one.
pub(crate) fn name_of(entry: &Descriptor) -> Option<Reference> {
    let name = entry.annotation(ANNOTATION_IMAGE_NAME);
    let name = name.or_else(|| {
        // Other tools store a bare tag here, which is no name.
        entry.annotation(ANNOTATION_REF_NAME).filter(|name| name.contains([':', '/', '@']))
    });
    Reference::parse(name?).ok()
}

fn is_named(entry: &Descriptor, key: &Reference) -> bool {
    name_of(entry).as_ref() == Some(key)
}

fn record(entry: &Descriptor) -> ImageRecord {
    let mut target = entry.clone();
    if let Some(annotations) = &mut target.annotations {
        annotations.retain(|key, _| key != ANNOTATION_REF_NAME && key != ANNOTATION_IMAGE_NAME);
    }
    target.annotations = target.annotations.filter(|annotations| !annotations.is_empty());
    ImageRecord { reference: name_of(entry), target }
}

fn entry(name: Option<&Reference>, target: &Descriptor) -> Descriptor {
    let mut entry = target.clone();
    let annotations = entry.annotations.get_or_insert_default();
    annotations.remove(ANNOTATION_REF_NAME);
    annotations.remove(ANNOTATION_IMAGE_NAME);
    if let Some(name) = name {
        annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.canonical());
        annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), name.canonical());
    }
    entry.annotations = entry.annotations.filter(|annotations| !annotations.is_empty());
    entry
}

/// Takes a name away. The image stays as a dangling entry if that was its last.
fn remove_name(entries: &mut Vec<Descriptor>, key: &Reference) -> Option<Descriptor> {
    let position = entries.iter().position(|entry| is_named(entry, key))?;
    let removed = record(&entries.remove(position)).target;
    if !entries.iter().any(|entry| entry.digest == removed.digest) {
        entries.insert(position, entry(None, &removed));
    }
    Some(removed)
}

#[cfg(test)]
mod tests;
