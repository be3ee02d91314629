//! One image for one platform: manifest and configuration, checked against each other.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{CONFIG_LIMIT, Descriptor, ImageManifest};
use crate::platform::Platform;
use crate::{Error, Result, document};

/// An image that can be unpacked and run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// The id shown to users: the digest of the configuration.
    pub id: Digest,
    /// Where the manifest is.
    pub target: Descriptor,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration, as the OCI image specification has it.
    pub config: ImageConfiguration,
    /// What Docker adds to the configuration.
    pub docker: DockerConfig,
    /// The platform that the configuration states.
    pub platform: Platform,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
    /// Digests of the uncompressed layers, one for each of `layers`.
    pub diff_ids: Vec<Digest>,
}

/// Fields of the image configuration that are Docker's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct DockerConfig {
    /// How to tell whether a container of this image works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Build instructions to run when another image is built on this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Shell for the shell form of instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Docker's health check. Durations are nanoseconds; zero or absent means inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Time between checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Time a check may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Time a container has to start up, in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Time between checks during the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

#[derive(Deserialize)]
struct WithDockerConfig {
    #[serde(default)]
    config: Option<DockerConfig>,
}

impl Image {
    /// Joins a manifest and the bytes of its configuration.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for artifacts, [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// for malformed configurations, [`Integrity`](crate::ErrorKind::Integrity) if the two contradict each other.
    pub fn parse(target: Descriptor, manifest: ImageManifest, config: &[u8]) -> Result<Self> {
        manifest.require_image()?;
        let id = manifest.config.digest.clone();
        let Parsed { config, docker, platform, diff_ids } = parse_config(config)?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::integrity(format!(
                "read image {id}: the manifest has {} layers but the configuration {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let layers = manifest.layers.clone();
        Ok(Self { id, target, manifest, config, docker, platform, layers, diff_ids })
    }

    /// The chain id of each layer: a name for it together with all below it.
    /// See the image specification, "Layer ChainID".
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.diff_ids)
    }

    /// Stored size in bytes: layers and configuration, as they are in the store.
    #[must_use]
    pub fn size(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        layers.fold(self.manifest.config.size, u64::saturating_add)
    }

    /// The labels of the image.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.config.config().as_ref().and_then(|config| config.labels().as_ref());
        labels.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// The chain ids of a stack of uncompressed layers, base first.
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(format!("{below} {diff_id}").as_bytes());
                hasher.finish()
            }
        });
    }
    chain
}

/// What a configuration says.
pub(crate) struct Parsed {
    pub(crate) config: ImageConfiguration,
    pub(crate) docker: DockerConfig,
    pub(crate) platform: Platform,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Parses an image configuration.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<Parsed> {
    let config: ImageConfiguration = document::parse("image configuration", bytes, CONFIG_LIMIT)?;
    let docker: WithDockerConfig = document::parse("image configuration", bytes, CONFIG_LIMIT)?;
    if config.rootfs().typ() != "layers" {
        let typ = config.rootfs().typ();
        return Err(Error::unsupported(format!("read image configuration: rootfs type {typ:?}")));
    }
    let diff_ids = config.rootfs().diff_ids().iter().map(|text| Digest::parse(text));
    let diff_ids = diff_ids.collect::<Result<Vec<_>>>()?;
    let platform = Platform {
        architecture: config.architecture().to_string(),
        os: config.os().to_string(),
        os_version: config.os_version().clone(),
        variant: config.variant().clone(),
    };
    let docker = docker.config.unwrap_or_default();
    Ok(Parsed { docker, platform, diff_ids, config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::media_type;

    const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],
        "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"},"OnBuild":null,
        "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000}},
        "rootfs":{"type":"layers","diff_ids":["DIGEST"]},"history":null}"#;

    fn config() -> String {
        CONFIG.replace("DIGEST", &Digest::of(b"layer").to_string())
    }

    fn manifest(layers: usize) -> ImageManifest {
        ImageManifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(media_type::OCI_CONFIG, config().as_bytes()),
            layers: vec![Descriptor::of(media_type::OCI_LAYER, b"layer"); layers],
            annotations: BTreeMap::new(),
            artifact_type: None,
            subject: None,
        }
    }

    fn parse(layers: usize) -> Result<Image> {
        let target = Descriptor::of(media_type::OCI_MANIFEST, b"");
        Image::parse(target, manifest(layers), config().as_bytes())
    }

    #[test]
    fn the_id_is_the_digest_of_the_configuration() {
        let image = parse(1).unwrap();
        assert_eq!(image.id, Digest::of(config().as_bytes()));
        assert_eq!(image.platform.to_string(), "linux/amd64");
        assert_eq!(image.labels().get("a").map(String::as_str), Some("b"));
        assert_eq!(image.docker.healthcheck.unwrap().interval, Some(1_000_000_000));
    }

    #[test]
    fn manifest_and_configuration_must_agree_on_the_layers() {
        assert_eq!(parse(2).unwrap_err().kind(), crate::ErrorKind::Integrity);
    }

    #[test]
    fn an_artifact_is_not_an_image() {
        let mut manifest = manifest(1);
        manifest.config.media_type = "application/vnd.example.chart+json".to_owned();
        assert_eq!(manifest.require_image().unwrap_err().kind(), crate::ErrorKind::Unsupported);
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&ids);
        let want = Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes());
        assert_eq!(chain, [ids[0].clone(), want]);
    }
}
