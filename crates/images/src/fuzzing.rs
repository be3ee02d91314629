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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}"#;
    const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Volumes":{"/d":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

    /// A sound document with some bytes replaced.
    fn damaged(sound: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        let places = prop::collection::vec((0..sound.len(), any::<u8>()), 0..6);
        places.prop_map(move |places| {
            let mut bytes = sound.clone();
            for (place, byte) in places {
                bytes[place] = byte;
            }
            bytes
        })
    }

    fn sound_archive() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let target = crate::test_images::image(&store.lease().unwrap(), "linux/amd64", &[b"layer"]);
        let references = vec![Reference::parse("app:1").unwrap()];
        let mut bytes = Vec::new();
        let saved = crate::archive::SavedImage { target, references };
        crate::archive::save(&store, &[saved], &crate::PlatformChoice::All, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn damaged_documents_never_panic(
            manifest_bytes in damaged(MANIFEST.into()),
            config_bytes in damaged(CONFIG.into()),
        ) {
            manifest(&manifest_bytes);
            config(&config_bytes);
            reference(&manifest_bytes);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn damaged_archives_never_panic(bytes in damaged(sound_archive())) {
            let directory = tempfile::tempdir().unwrap();
            archive(&Store::open(directory.path()).unwrap(), &bytes);
        }
    }
}
