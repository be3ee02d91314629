//! Garbage collection by reachability.
//!
//! Roots are the entries of `index.json`, what living leases protect, and what the caller adds. Whatever a root's
//! manifests refer to stays; every other blob goes. Collection holds the store's exclusive lock, under which no name can
//! change and no lease can grow.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::time::{Duration, SystemTime};

use crate::content::{LEFTOVER, is_same_file, try_lock};
use crate::digest::Digest;
use crate::lease;
use crate::manifest::{MANIFEST_LIMIT, Manifest};
use crate::store::Store;
use crate::{Error, Result};

/// Partial downloads younger than this are worth keeping for a resume.
pub const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// The blobs that are gone.
    pub blobs: Vec<Digest>,
    /// Bytes freed, partial downloads included.
    pub bytes: u64,
}

impl Store {
    /// Removes all content that no name, no living lease and none of `roots` reaches, and partial downloads that nobody
    /// writes and that are older than `partial_age` (usually [`PARTIAL_AGE`]).
    ///
    /// A root may be any digest: of an index, a manifest, a configuration or a layer. A configuration's digest alone does
    /// not keep its layers; give the manifest's.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io). Nothing is removed if the index or a manifest in use cannot be read.
    pub fn collect_garbage(&self, roots: &[Digest], partial_age: Duration) -> Result<Collected> {
        self.collect_garbage_with(|| Ok(roots.to_vec()), partial_age)
    }

    /// The same with roots that are determined once nothing can be leased any more. What a lease protected until the
    /// owner of the roots took it over is thus never missed.
    ///
    /// # Errors
    /// As [`collect_garbage`](Self::collect_garbage), and what `roots` reports.
    pub fn collect_garbage_with<E: From<Error>>(
        &self,
        roots: impl FnOnce() -> Result<Vec<Digest>, E>,
        partial_age: Duration,
    ) -> Result<Collected, E> {
        let _guard = self.lock_exclusive()?;
        // Leases first: one ends without a lock, once what it protected has a name or is somebody's root.
        let mut pending = lease::protected(self)?;
        pending.extend(roots()?);
        pending.extend(self.images()?.into_iter().map(|record| record.target.digest));
        let live = self.reach(pending)?;
        let mut collected = Collected::default();
        for digest in self.blobs().list()? {
            if !live.contains(&digest) {
                collected.bytes += self.blobs().remove(&digest)?;
                collected.blobs.push(digest);
            }
        }
        collected.bytes += self.remove_partials(partial_age)?;
        self.remove_leftovers()?;
        Ok(collected)
    }

    /// All digests that `pending` reaches, itself included.
    pub(crate) fn reach(&self, mut pending: Vec<Digest>) -> Result<HashSet<Digest>> {
        let mut live = HashSet::new();
        while let Some(digest) = pending.pop() {
            if !live.insert(digest.clone()) || !self.may_be_manifest(&digest) {
                continue;
            }
            let bytes = self.blobs().read(&digest, MANIFEST_LIMIT)?;
            let Ok(manifest) = Manifest::parse(&bytes, None) else { continue };
            for child in manifest.children() {
                // What the parent says is no manifest is not read: layers are many and may be damaged.
                if child.is_manifest() || child.is_index() {
                    pending.push(child.digest.clone());
                } else {
                    live.insert(child.digest.clone());
                }
            }
        }
        Ok(live)
    }

    /// Roots and leases hold bare digests: what is small and starts like JSON is tried.
    fn may_be_manifest(&self, digest: &Digest) -> bool {
        let small = self.blobs().size(digest).is_some_and(|size| size <= MANIFEST_LIMIT as u64);
        let mut first = [0];
        let read = match self.blobs().open(digest) {
            Ok(mut file) => file.read_exact(&mut first).is_ok(),
            Err(_) => false,
        };
        small && read && matches!(first, [b'{' | b' ' | b'\t' | b'\r' | b'\n'])
    }

    /// Small files that a crash left half replaced. They are made under the lock that the caller holds, so they are dead.
    fn remove_leftovers(&self) -> Result<()> {
        let root = self.root();
        let entries = fs::read_dir(root).map_err(|source| Error::io("list", root, source))?;
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(LEFTOVER.as_bytes()) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
            }
        }
        Ok(())
    }

    fn remove_partials(&self, age: Duration) -> Result<u64> {
        let directory = self.blobs().ingest();
        let mut freed = 0;
        let entries = fs::read_dir(&directory);
        for entry in entries.map_err(|source| Error::io("list", &directory, source))? {
            let path = entry.map_err(|source| Error::io("list", &directory, source))?.path();
            let Ok(file) = OpenOptions::new().read(true).open(&path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let old = modified.elapsed().unwrap_or_default() >= age;
            // Files without a digest in their name cannot be resumed: once unlocked, they are dead.
            let anonymous =
                path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"new-"));
            if (old || anonymous) && try_lock(&file, &path)? && is_same_file(&file, &path) {
                fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
                freed += metadata.len();
            }
        }
        Ok(freed)
    }
}
