//! Garbage collection while serving.
//!
//! What a repository's manifests refer to stays; a blob that none refers to stays for the grace after it was last asked
//! for, so that a push under way never loses what it has sent or seen. All is decided under the content store's exclusive
//! lock, and requests give names under its shared lock: a manifest is either named already, or its parts are leased.

use std::collections::HashSet;
use std::time::Duration;

use brig_images::manifest::{MANIFEST_LIMIT, Manifest};
use brig_images::{Digest, Store};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::server::Shared;

/// How long a pull-through cache keeps an image after it was last asked for.
const CACHE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs: usize,
    /// Bytes freed, abandoned uploads included.
    pub bytes: u64,
}

/// Removes what nothing needs.
pub(crate) fn collect(shared: &Shared, grace: Duration) -> Result<Collected> {
    let roots = || roots(shared, grace);
    let collected = shared.store.collect_garbage_with(roots, grace)?;
    shared.uploads.forget_dead()?;
    Ok(Collected { blobs: collected.blobs.len(), bytes: collected.bytes })
}

fn roots(shared: &Shared, grace: Duration) -> Result<Vec<Digest>> {
    let store = &shared.store;
    let mut roots = HashSet::new();
    shared.repositories.each(|repository| {
        if shared.proxy.is_some() {
            expire(store, &repository)?;
        }
        let manifests = repository.manifests()?;
        let referred = referred(store, &manifests)?;
        for (blob, age) in repository.blobs()? {
            if referred.contains(&blob) || age < grace {
                roots.insert(blob);
            } else {
                repository.remove_blob(&blob)?;
            }
        }
        roots.extend(manifests);
        Ok(())
    })?;
    Ok(roots.into_iter().collect())
}

/// A cache forgets what nobody asked for in a long time.
fn expire(store: &Store, repository: &Repository) -> Result<()> {
    for (digest, age) in repository.manifest_ages()? {
        if age >= CACHE_AGE {
            let read = store.blobs().contains(&digest).then(|| read_manifest(store, &digest));
            let manifest = read.transpose()?;
            let subject = manifest.as_ref().and_then(|(_, manifest)| manifest.subject());
            repository.remove_manifest(&digest, subject.map(|subject| &subject.digest))?;
        }
    }
    Ok(())
}

/// Everything that the manifests of a repository point to.
fn referred(store: &Store, manifests: &[Digest]) -> Result<HashSet<Digest>> {
    let mut referred = HashSet::new();
    for digest in manifests {
        if !store.blobs().contains(digest) {
            continue;
        }
        let bytes = store.blobs().read(digest, MANIFEST_LIMIT)?;
        let manifest = Manifest::parse(&bytes, None).map_err(|source| {
            Error::caused(ErrorKind::Io, format!("read manifest {digest}"), source)
        })?;
        referred.extend(manifest.children().map(|child| child.digest.clone()));
    }
    Ok(referred)
}

/// Reads a manifest that is here.
pub(crate) fn read_manifest(store: &Store, digest: &Digest) -> Result<(Vec<u8>, Manifest)> {
    let bytes = store.blobs().read(digest, MANIFEST_LIMIT)?;
    let manifest = Manifest::parse(&bytes, None)?;
    Ok((bytes, manifest))
}

/// Whether any manifest of a repository refers to `content`, a blob or a manifest.
pub(crate) fn is_referred(
    store: &Store,
    repository: &Repository,
    content: &Digest,
) -> Result<bool> {
    Ok(referred(store, &repository.manifests()?)?.contains(content))
}
