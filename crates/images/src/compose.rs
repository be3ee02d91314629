//! New images: a layer from a tar archive, and the documents that make an image of it.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::Image;
use crate::layer::Bounded;
use crate::lease::Lease;
use crate::manifest::{CONFIG_LIMIT, Descriptor, LAYER_LIMIT, media_type};
use crate::platform::Platform;
use crate::{Error, ErrorKind, Result};

/// The end of a tar archive, which is all of an empty one.
const EMPTY_TAR: [u8; 1024] = [0; 1024];
/// Compressed forms that other tools read and this one does not, by how they begin.
const FOREIGN: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// A layer that was made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// The stored layer.
    pub layer: Descriptor,
    /// The digest of its tar archive.
    pub diff_id: Digest,
}

impl NewLayer {
    /// Whether the archive holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diff_id == Digest::of(&EMPTY_TAR)
    }
}

/// An image to be made.
#[derive(Clone, Debug)]
pub struct NewImage<'a> {
    /// The image below it.
    pub base: Option<&'a Image>,
    /// What it adds; an empty layer only adds to the history.
    pub layer: NewLayer,
    /// The platform of an image without a base.
    pub platform: Platform,
    /// The `config` object of the image specification.
    pub config: Value,
    /// Who made it.
    pub author: Option<String>,
    /// Why.
    pub comment: Option<String>,
    /// When, as RFC 3339 has it.
    pub created: String,
    /// By what command.
    pub created_by: Option<String>,
}

impl Lease {
    /// Stores the tar archive that `write` writes as a layer, compressed with gzip. The same archive always becomes the
    /// same layer.
    ///
    /// # Errors
    /// [`Exhausted`](ErrorKind::Exhausted) or [`Io`](ErrorKind::Io), and what `write` reports.
    pub fn put_layer<E: From<Error>>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<NewLayer, E> {
        let encoder = GzEncoder::new(self.anonymous()?, flate2::Compression::fast());
        let mut layer = LayerWriter { encoder, hasher: Hasher::new(Algorithm::Sha256) };
        write(&mut layer)?;
        let LayerWriter { encoder, hasher } = layer;
        let ingest = self.store().blobs().ingest();
        let written = encoder.finish();
        let written = written.map_err(|source| Error::io("write a layer into", &ingest, source))?;
        let (digest, size) = self.commit(written)?;
        let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);
        Ok(NewLayer { layer, diff_id: hasher.finish() })
    }

    /// Stores a tar archive, plain or compressed with gzip or zstd, as a layer.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the compression is damaged, [`Unsupported`](ErrorKind::Unsupported)
    /// for other compressions, and as [`put_layer`](Self::put_layer).
    pub fn put_layer_from(&self, mut archive: impl Read) -> Result<NewLayer> {
        let damaged = |source: io::Error| {
            let attempt = "read the archive of a file system: it is damaged or cut short";
            Error::recover(source)
                .unwrap_or_else(|source| Error::caused(ErrorKind::InvalidInput, attempt, source))
        };
        let mut start = Vec::new();
        archive.by_ref().take(8).read_to_end(&mut start).map_err(damaged)?;
        if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(Error::unsupported(format!(
                "read the archive of a file system: {name} is not supported; compress it with gzip or zstd, or not at all"
            )));
        }
        let mut tar = Bounded::new(start.as_slice().chain(archive)).map_err(damaged)?;
        self.put_layer(|layer| {
            let mut buffer = vec![0; 128 << 10];
            loop {
                let count = tar.read(&mut buffer).map_err(damaged)?;
                if count == 0 {
                    return Ok(());
                }
                let written = layer.write_all(&buffer[..count]);
                let ingest = self.store().blobs().ingest();
                written.map_err(|source| Error::io("write a layer into", &ingest, source))?;
            }
        })
    }

    /// Stores the configuration and manifest of a new image and returns the manifest. It has no name yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the image gets too many layers or too large a configuration;
    /// [`Exhausted`](ErrorKind::Exhausted) or [`Io`](ErrorKind::Io).
    pub fn put_image(&self, new: &NewImage<'_>) -> Result<Descriptor> {
        let mut layers: Vec<Descriptor> =
            new.base.map(|base| base.layers.iter().map(oci_layer).collect()).unwrap_or_default();
        let mut diff_ids = new.base.map(|base| base.diff_ids.clone()).unwrap_or_default();
        let is_empty = new.base.is_some() && new.layer.is_empty();
        if !is_empty {
            layers.push(new.layer.layer.clone());
            diff_ids.push(new.layer.diff_id.clone());
        }
        if layers.len() > LAYER_LIMIT {
            return Err(Error::invalid(format!(
                "make an image: it would have more than {LAYER_LIMIT} layers"
            )));
        }
        let mut config = self.base_config(new)?;
        let mut step = Map::new();
        for (key, value) in [
            ("created", Some(&new.created)),
            ("created_by", new.created_by.as_ref()),
            ("author", new.author.as_ref()),
            ("comment", new.comment.as_ref()),
        ] {
            step.extend(value.map(|value| (key.to_owned(), json!(value))));
        }
        if is_empty {
            step.insert("empty_layer".to_owned(), json!(true));
        }
        let history = config.entry("history").or_insert_with(|| json!([]));
        match history {
            Value::Array(steps) => steps.push(Value::Object(step)),
            other => *other = json!([step]),
        }
        for (key, value) in [
            ("config", new.config.clone()),
            ("created", json!(new.created)),
            ("author", json!(new.author)),
            ("rootfs", json!({ "type": "layers", "diff_ids": diff_ids })),
        ] {
            config.insert(key.to_owned(), value);
        }
        config.retain(|_, value| !value.is_null());
        let bytes = Value::Object(config).to_string();
        if bytes.len() > CONFIG_LIMIT {
            return Err(Error::invalid(format!(
                "make an image: its configuration would be larger than {CONFIG_LIMIT} bytes"
            )));
        }
        let config = self.put(media_type::OCI_CONFIG, bytes.as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
        });
        self.protect(layers.iter().map(|layer| &layer.digest))?;
        let target = self.put(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())?;
        let platform = new.base.map_or(&new.platform, |base| &base.platform);
        Ok(Descriptor { platform: Some(platform.clone()), ..target })
    }

    /// The configuration that the new one starts from. What docker once noted of the container an image came from is not
    /// true of the new one.
    fn base_config(&self, new: &NewImage<'_>) -> Result<Map<String, Value>> {
        let Some(base) = new.base else {
            let mut config = Map::new();
            let Platform { architecture, os, os_version, variant } = &new.platform;
            config.insert("architecture".to_owned(), json!(architecture));
            config.insert("os".to_owned(), json!(os));
            config.insert("os.version".to_owned(), json!(os_version));
            config.insert("variant".to_owned(), json!(variant));
            return Ok(config);
        };
        let bytes = self.store().blobs().read(&base.id, CONFIG_LIMIT)?;
        let mut config: Map<String, Value> =
            crate::document::parse("image configuration", &bytes, CONFIG_LIMIT)?;
        for stale in ["container", "container_config", "docker_version", "parent", "id"] {
            config.remove(stale);
        }
        Ok(config)
    }
}

/// A layer in the terms of the OCI: its manifest is one, whatever form the base had.
fn oci_layer(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        other => other,
    };
    Descriptor { media_type: media_type.to_owned(), ..layer.clone() }
}

struct LayerWriter<W: Write> {
    encoder: GzEncoder<W>,
    hasher: Hasher,
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn new<'a>(base: Option<&'a Image>, layer: NewLayer) -> NewImage<'a> {
        NewImage {
            base,
            layer,
            platform: Platform::parse("linux/arm64").unwrap(),
            config: json!({ "Cmd": ["x"] }),
            author: Some("me".to_owned()),
            comment: Some("why".to_owned()),
            created: "2024-01-02T03:04:05Z".to_owned(),
            created_by: None,
        }
    }

    fn layer(lease: &Lease, tar: &[u8]) -> NewLayer {
        lease.put_layer_from(tar).unwrap()
    }

    #[test]
    fn an_image_grows_by_layers_and_history() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lease = store.lease().unwrap();
        let first = lease.put_image(&new(None, layer(&lease, b"tar one"))).unwrap();
        let platform = Platform::parse("linux/arm64").unwrap();
        let base = store.image(&first, &platform).unwrap();
        assert_eq!(base.diff_ids, [Digest::of(b"tar one")]);
        let zstd = zstd::encode_all(&b"tar two"[..], 1).unwrap();
        let second = lease.put_image(&new(Some(&base), layer(&lease, &zstd))).unwrap();
        let image = store.image(&second, &platform).unwrap();
        assert_eq!(image.diff_ids, [Digest::of(b"tar one"), Digest::of(b"tar two")]);
        store.layer(&image.layers[1], &image.diff_ids[1]).unwrap().finish().unwrap();
        let empty = lease.put_image(&new(Some(&image), layer(&lease, &EMPTY_TAR))).unwrap();
        let empty = store.image(&empty, &platform).unwrap();
        assert_eq!(empty.layers.len(), 2);
        let history = empty.config.history().clone().unwrap();
        assert_eq!(history.len(), 3);
        assert_eq!(history[2].empty_layer(), Some(true));
        assert_eq!(history[0].comment().as_deref(), Some("why"));
        assert_eq!(empty.config.author().as_deref(), Some("me"));
        store.keep(&second).unwrap();
        drop(lease);
        store.collect_garbage(&[], std::time::Duration::ZERO).unwrap();
        store.layer(&image.layers[0], &image.diff_ids[0]).unwrap().finish().unwrap();
    }

    #[test]
    fn other_compressions_are_refused_by_name_and_damage_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let lease = Store::open(directory.path()).unwrap().lease().unwrap();
        let error = lease.put_layer_from(&b"BZh91AY"[..]).unwrap_err();
        assert!(error.to_string().contains("bzip2"), "{error}");
        let error = lease.put_layer_from(&b"\x1f\x8b\x08damaged"[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}
