//! Small images for tests.

use crate::digest::Digest;
use crate::lease::Lease;
use crate::manifest::{Descriptor, media_type};
use crate::platform::Platform;

/// Stores an image with uncompressed layers and returns its manifest.
pub(crate) fn image(lease: &Lease, platform: &str, layers: &[&[u8]]) -> Descriptor {
    let platform = Platform::parse(platform).unwrap();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os,
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = lease.put(media_type::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let layers: Vec<Descriptor> =
        layers.iter().map(|layer| lease.put(media_type::OCI_LAYER, layer).unwrap()).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
    });
    let mut target = lease.put(media_type::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    target.platform = Some(platform);
    target
}

/// Stores an index of `manifests`.
pub(crate) fn index_of(lease: &Lease, manifests: &[Descriptor]) -> Descriptor {
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests,
    });
    lease.put(media_type::OCI_INDEX, index.to_string().as_bytes()).unwrap()
}
