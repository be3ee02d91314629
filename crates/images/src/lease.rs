//! Leases: what keeps garbage collection off content that is arriving and has no name yet.
//!
//! A lease is a file `leases/<random>` listing digests, with an exclusive `flock` held as long as the lease lives. A
//! lease whose lock can be had belongs to a dead process and is removed. Digests are added under the store's shared lock
//! and collection runs under its exclusive lock, so a blob found present after it was leased stays present.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use crate::content::{Acquired, AnonymousWriter, Unpublished, is_same_file, try_lock};
use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;
use crate::store::Store;
use crate::{Error, Result};

/// Permission to write content, and its protection until dropped. Give the content a name
/// ([`Store::tag`]) before letting go.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    file: Mutex<File>,
    path: PathBuf,
}

impl Lease {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let directory = store.leases();
        // Under the shared lock, collection cannot mistake a lease that is not locked yet for a dead one.
        let _guard = store.lock_shared()?;
        let file = tempfile::Builder::new().prefix("lease-").tempfile_in(&directory);
        let file = file.map_err(|source| Error::io("create a lease in", &directory, source))?;
        try_lock(file.as_file(), file.path())?;
        let (file, path) = file.keep().map_err(|e| Error::io("keep", &directory, e.error))?;
        Ok(Self { store: store.clone(), file: Mutex::new(file), path })
    }

    /// The store this lease is of.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Protects `digests`, and what those that are manifests refer to, until the lease is dropped. They need not be
    /// there yet.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Io`](crate::ErrorKind::Io).
    pub fn protect<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let lines: String = digests.into_iter().map(|digest| format!("{digest}\n")).collect();
        let _guard = self.store.lock_shared()?;
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = file.write_all(lines.as_bytes());
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// Starts or continues writing a blob of known digest and size.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Io`](crate::ErrorKind::Io).
    pub fn writer(&self, target: &Descriptor) -> Result<Acquired> {
        self.protect([&target.digest])?;
        self.store.blobs().try_writer(target)
    }

    /// Starts or continues writing a blob that takes the place of the one that is there: for one found damaged.
    ///
    /// # Errors
    /// As [`writer`](Self::writer).
    pub fn replacement(&self, target: &Descriptor) -> Result<Acquired> {
        self.protect([&target.digest])?;
        self.store.blobs().try_replacement(target)
    }

    /// Starts writing a blob of unknown digest; finish with [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Io`](crate::ErrorKind::Io).
    pub fn anonymous(&self) -> Result<AnonymousWriter> {
        // Under the shared lock, collection cannot take a file that is not locked yet for a dead writer's.
        let _guard = self.store.lock_shared()?;
        self.store.blobs().anonymous()
    }

    /// Stores what an anonymous writer got and returns its digest and size.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Io`](crate::ErrorKind::Io).
    pub fn commit(&self, writer: AnonymousWriter) -> Result<(Digest, u64)> {
        let (digest, size, file) = writer.finish();
        self.protect([&digest])?;
        file.publish(&digest)?;
        Ok((digest, size))
    }

    /// Stores `bytes` under a digest that they must hash to.
    ///
    /// # Errors
    /// [`Integrity`](crate::ErrorKind::Integrity), [`Exhausted`](crate::ErrorKind::Exhausted) or
    /// [`Io`](crate::ErrorKind::Io).
    pub fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.checked(digest, bytes)?.publish(digest)
    }

    /// As [`put_as`](Self::put_as), in place of what is there: for a blob found damaged.
    ///
    /// # Errors
    /// As [`put_as`](Self::put_as).
    pub fn replace(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.checked(digest, bytes)?.replace(digest)
    }

    fn checked(&self, digest: &Digest, bytes: &[u8]) -> Result<Unpublished> {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::integrity(format!(
                "store {digest}: the content hashes to {found} instead"
            )));
        }
        self.protect([digest])?;
        let mut writer = self.anonymous()?;
        let written = writer.write_all(bytes);
        written.map_err(|source| Error::io("write into", &self.store.blobs().ingest(), source))?;
        let (_, _, file) = writer.finish();
        Ok(file)
    }

    /// Stores `bytes` whole.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Io`](crate::ErrorKind::Io).
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let mut writer = self.anonymous()?;
        let written = writer.write_all(bytes);
        written.map_err(|source| Error::io("write into", &self.store.blobs().ingest(), source))?;
        let (digest, size) = self.commit(writer)?;
        Ok(Descriptor::new(media_type, digest, size))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is seen as dead by the next collection.
        let _ = fs::remove_file(&self.path);
    }
}

/// The digests of all living leases. Dead ones are removed. The caller holds the store's exclusive lock.
pub(crate) fn protected(store: &Store) -> Result<Vec<Digest>> {
    let directory = store.leases();
    let mut found = Vec::new();
    let entries = fs::read_dir(&directory);
    for entry in entries.map_err(|source| Error::io("list", &directory, source))? {
        let path = entry.map_err(|source| Error::io("list", &directory, source))?.path();
        let Ok(mut file) = OpenOptions::new().read(true).open(&path) else { continue };
        if try_lock(&file, &path)? {
            if is_same_file(&file, &path) {
                fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
            }
            continue;
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        read.map_err(|source| Error::io("read", &path, source))?;
        found.extend(text.lines().filter_map(|line| Digest::parse(line).ok()));
    }
    Ok(found)
}
