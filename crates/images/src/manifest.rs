//! Manifests and indexes of the OCI image specification 1.1, and Docker's schema 2 forms of the same.
//!
//! Documents are never written again once parsed: what is stored, pushed and hashed are the original bytes.
//!
//! Limits: 4 MiB a document, 1,000 descriptors an index, 512 layers an image, 8 MiB a configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;
use crate::{Error, Result, document};

/// Largest manifest or index, in bytes.
pub const MANIFEST_LIMIT: usize = 4 << 20;
/// Largest image configuration, in bytes.
pub const CONFIG_LIMIT: usize = 8 << 20;
/// Most descriptors in an index.
pub const INDEX_LIMIT: usize = 1000;
/// Most layers in an image.
pub const LAYER_LIMIT: usize = 512;
/// Deepest nesting of indexes: an index may hold indexes, which hold manifests only.
pub const INDEX_DEPTH: usize = 2;

/// Media types that this crate reads and writes.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, Zstandard.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker schema 2 manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker schema 1 manifests, which are refused.
    pub const DOCKER_SCHEMA1: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
}

/// A pointer to content: its type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// What it hashes to.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What an image manifest is for, when listed in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form annotations. They are carried, never obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Other places the content may be had from. Never contacted: they are a way to make a client call strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    /// A descriptor without optional fields.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
            artifact_type: None,
            urls: None,
        }
    }

    /// Describes `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Whether this points to an image manifest.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].contains(&self.media_type.as_str())
    }

    /// Whether this points to an index.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [media_type::OCI_INDEX, media_type::DOCKER_INDEX].contains(&self.media_type.as_str())
    }

    /// Whether this points to a layer of an image, in any compression.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        let media_type = self.media_type.as_str();
        media_type.starts_with("application/vnd.oci.image.layer.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.")
    }

    /// Whether this is a build attestation (provenance, SBOM) or is filed under an unknown platform: nothing to run.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        let marked = |annotations: &BTreeMap<String, String>| {
            annotations.contains_key("vnd.docker.reference.type")
        };
        self.annotations.as_ref().is_some_and(marked)
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// A parsed manifest document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image for one platform.
    Image(Box<ImageManifest>),
    /// Several, to choose from.
    Index(Index),
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its media type, stated or implied.
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// Free-form annotations.
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact that is no image.
    pub artifact_type: Option<String>,
    /// What this manifest says something about, such as the image it signs. It need not be anywhere.
    pub subject: Option<Box<Descriptor>>,
}

/// An index of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its media type, stated or implied.
    pub media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// Free-form annotations.
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact that is no image.
    pub artifact_type: Option<String>,
    /// What this index says something about.
    pub subject: Option<Box<Descriptor>>,
}

/// Every field of every form, so that a document claiming to be two things at once is seen as such.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde_json::Value>,
    annotations: Option<BTreeMap<String, String>>,
    artifact_type: Option<String>,
    subject: Option<Box<Descriptor>>,
}

/// What manifests and indexes have alike.
struct Extras {
    annotations: BTreeMap<String, String>,
    artifact_type: Option<String>,
    subject: Option<Box<Descriptor>>,
}

impl Manifest {
    /// Parses a manifest or index. `declared` is the media type it was announced with, if any.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for malformed documents, ones past a limit, ones that mix
    /// manifest and index, and ones that contradict `declared`; [`Unsupported`](crate::ErrorKind::Unsupported) for
    /// Docker's schema 1 and for other media types.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self> {
        let declared = declared.map(|text| text.split(';').next().unwrap_or(text).trim());
        if let Some(declared) = declared
            && media_type::DOCKER_SCHEMA1.contains(&declared)
        {
            return Err(schema1());
        }
        let wire: Wire = document::parse("manifest", bytes, MANIFEST_LIMIT)?;
        if wire.schema_version == 1 || wire.fs_layers.is_some() {
            return Err(schema1());
        }
        if wire.schema_version != 2 {
            let version = wire.schema_version;
            return Err(Error::unsupported(format!("parse manifest: schema version {version}")));
        }
        let known = declared.filter(|declared| is_known(declared));
        if let (Some(declared), Some(stated)) = (known, wire.media_type.as_deref())
            && declared != stated
        {
            return Err(Error::invalid(format!(
                "parse manifest: it says it is {stated:?} but was announced as {declared:?}"
            )));
        }
        let stated = wire.media_type.clone().or_else(|| known.map(str::to_owned));
        let extras = Extras {
            annotations: wire.annotations.unwrap_or_default(),
            artifact_type: wire.artifact_type,
            subject: wire.subject,
        };
        match (wire.manifests, wire.config, wire.layers) {
            (Some(manifests), None, None) => {
                Ok(Self::Index(Index::check(stated, manifests, extras)?))
            }
            (None, Some(config), layers) => {
                let layers = layers.unwrap_or_default();
                let image = ImageManifest::check(stated, config, layers, extras)?;
                Ok(Self::Image(Box::new(image)))
            }
            (Some(_), ..) => Err(Error::invalid(
                "parse manifest: it is a manifest and an index at once, which is a known attack",
            )),
            (None, None, _) => {
                Err(Error::invalid("parse manifest: it has no config and no manifests"))
            }
        }
    }

    /// The media type.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(image) => &image.media_type,
            Self::Index(index) => &index.media_type,
        }
    }

    /// What this document says something about, if anything.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(image) => image.subject.as_deref(),
            Self::Index(index) => index.subject.as_deref(),
        }
    }

    /// Its annotations.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Image(image) => &image.annotations,
            Self::Index(index) => &index.annotations,
        }
    }

    /// The type of artifact, by the specification's rule: stated, else a manifest's configuration's media type.
    #[must_use]
    pub fn artifact_type(&self) -> Option<&str> {
        match self {
            Self::Image(image) => {
                let stated = image.artifact_type.as_deref().filter(|stated| !stated.is_empty());
                stated.or(Some(&image.config.media_type))
            }
            Self::Index(index) => index.artifact_type.as_deref(),
        }
    }

    /// All descriptors that this document points to, its subject excepted.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, list) = match self {
            Self::Image(image) => (Some(&image.config), &image.layers),
            Self::Index(index) => (None, &index.manifests),
        };
        config.into_iter().chain(list)
    }
}

fn schema1() -> Error {
    Error::unsupported(
        "parse manifest: the image is stored in Docker's old schema 1 format; push it again with a current tool",
    )
}

fn is_known(media_type: &str) -> bool {
    let descriptor = Descriptor::new(media_type, Digest::of(b""), 0);
    descriptor.is_manifest() || descriptor.is_index()
}

impl ImageManifest {
    fn check(
        stated: Option<String>,
        config: Descriptor,
        layers: Vec<Descriptor>,
        extras: Extras,
    ) -> Result<Self> {
        let media_type = stated.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
        if ![media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].contains(&media_type.as_str()) {
            return Err(Error::unsupported(format!(
                "parse manifest: media type {media_type:?} is not an image manifest"
            )));
        }
        if layers.len() > LAYER_LIMIT {
            return Err(Error::invalid(format!("parse manifest: more than {LAYER_LIMIT} layers")));
        }
        if config.size > CONFIG_LIMIT as u64 {
            return Err(Error::invalid(format!(
                "parse manifest: the configuration is larger than {CONFIG_LIMIT} bytes"
            )));
        }
        let Extras { annotations, artifact_type, subject } = extras;
        Ok(Self { media_type, config, layers, annotations, artifact_type, subject })
    }

    /// Whether this is an image to run, rather than some other artifact in an image's clothes.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), naming the media type that does not fit.
    pub fn require_image(&self) -> Result<()> {
        let config = self.config.media_type.as_str();
        if ![media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config) {
            return Err(Error::unsupported(format!(
                "read manifest: its configuration has media type {config:?}, so this is an artifact, not an image to run"
            )));
        }
        match self.layers.iter().find(|layer| !layer.is_layer()) {
            Some(layer) => Err(Error::unsupported(format!(
                "read manifest: layer {} has unsupported media type {:?}",
                layer.digest, layer.media_type
            ))),
            None => Ok(()),
        }
    }
}

impl Index {
    fn check(stated: Option<String>, manifests: Vec<Descriptor>, extras: Extras) -> Result<Self> {
        let media_type = stated.unwrap_or_else(|| media_type::OCI_INDEX.to_owned());
        if ![media_type::OCI_INDEX, media_type::DOCKER_INDEX].contains(&media_type.as_str()) {
            return Err(Error::unsupported(format!(
                "parse manifest: media type {media_type:?} is not an image index"
            )));
        }
        if manifests.len() > INDEX_LIMIT {
            return Err(Error::invalid(format!("parse index: more than {INDEX_LIMIT} manifests")));
        }
        let Extras { annotations, artifact_type, subject } = extras;
        Ok(Self { media_type, manifests, annotations, artifact_type, subject })
    }

    /// What could be run: manifests and indexes, without attestations and unknown things.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests
            .iter()
            .filter(|entry| (entry.is_manifest() || entry.is_index()) && !entry.is_attestation())
    }

    /// The entries that suit `platform`, best first; those that state no platform come last.
    #[must_use]
    pub fn candidates(&self, platform: &Platform) -> Vec<&Descriptor> {
        let ranked = self.images().filter_map(|entry| match &entry.platform {
            Some(candidate) => platform.rank(candidate).map(|rank| (rank, entry)),
            None => Some((u32::MAX, entry)),
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The platforms that are offered, for messages of the registry client.
    #[cfg(any(feature = "registry", test))]
    pub(crate) fn offered(&self) -> String {
        let platforms = self.images().filter_map(|entry| entry.platform.as_ref());
        let mut names: Vec<String> = platforms.map(ToString::to_string).collect();
        names.dedup();
        names.truncate(20);
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

#[cfg(test)]
mod tests;
