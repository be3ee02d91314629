//! Entry points for fuzzers: everything a stranger's bytes reach first. None may panic, hang or use unbounded memory.

use crate::digest::Digest;
use crate::image;
use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;

/// References and platforms. What parses must survive being written and parsed again.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Digest::parse(text);
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(platform.normalized(), platform);
    }
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.canonical()).ok().as_ref(), Some(&reference));
        assert_eq!(Reference::parse(&reference.familiar()).ok().as_ref(), Some(&reference));
    }
}

/// Manifests and indexes.
pub fn manifest(bytes: &[u8]) {
    if let Ok(Manifest::Index(index)) = Manifest::parse(bytes, None) {
        let _ = index.candidates(&Platform::host());
    }
}

/// Image configurations.
pub fn config(bytes: &[u8]) {
    if let Ok(parsed) = image::parse_config(bytes) {
        let _ = image::chain_ids(&parsed.diff_ids);
    }
}

/// The `WWW-Authenticate` header.
#[cfg(feature = "registry")]
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for challenge in crate::registry::parse_challenges(text) {
            let _ = challenge.parameter("realm");
        }
    }
}

/// Archives, loaded into `store`. On success everything named must be readable.
///
/// # Panics
/// If the store lists what cannot be read: a bug.
pub fn archive(store: &Store, bytes: &[u8]) {
    if let Ok(loaded) = crate::archive::load(store, bytes) {
        for image in loaded {
            assert!(store.manifests(&image.target).is_ok_and(|manifests| !manifests.is_empty()));
        }
    }
}
