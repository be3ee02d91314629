//! Uploads: a blob that arrives in pieces over many requests, maybe across a restart, its digest known at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{Blobs, is_same_file, try_lock};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::lease::Lease;
use crate::store::Store;
use crate::{Error, ErrorKind, Result};

/// Longest name of an upload.
const NAME_LENGTH: usize = 64;

/// One upload, held exclusively across processes. Dropped before [`commit`](Self::commit), what came stays under its name
/// until garbage collection finds it old.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    written: u64,
}

impl Store {
    /// Starts an upload called `name`: 1 to 64 of `[a-z0-9-]`.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists), [`InvalidInput`](ErrorKind::InvalidInput) for another name,
    /// [`Exhausted`](ErrorKind::Exhausted) or [`Io`](ErrorKind::Io).
    pub fn create_upload(&self, name: &str) -> Result<Upload> {
        let path = self.blobs().upload_path(name)?;
        // Under the shared lock, collection cannot take a file that is not locked yet for a dead writer's.
        let _guard = self.lock_shared()?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::caused(ErrorKind::AlreadyExists, format!("start upload {name}"), source)
            }
            _ => Error::io("create", &path, source),
        })?;
        if !try_lock(&file, &path)? {
            return Err(busy(name));
        }
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(Upload { blobs: self.blobs().clone(), file, path, hasher, written: 0 })
    }

    /// Takes up an upload where it stopped, reading what is there to hash it anew.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Conflict`](ErrorKind::Conflict) while someone else writes it, or
    /// [`Io`](ErrorKind::Io).
    pub fn resume_upload(&self, name: &str) -> Result<Upload> {
        let path = self.blobs().upload_path(name)?;
        // Under the shared lock, collection does not hold the file while it looks at its age.
        let guard = self.lock_shared()?;
        let missing = |source| {
            Error::caused(ErrorKind::NotFound, format!("resume upload {name}: it is gone"), source)
        };
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|source| match source
                .kind()
            {
                io::ErrorKind::NotFound => missing(source),
                _ => Error::io("open", &path, source),
            })?;
        if !try_lock(&file, &path)? {
            return Err(busy(name));
        }
        if !is_same_file(&file, &path) {
            return Err(missing(io::ErrorKind::NotFound.into()));
        }
        drop(guard);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let written = hasher.drain(&mut file);
        let written = written.map_err(|source| Error::io("read", &path, source))?;
        Ok(Upload { blobs: self.blobs().clone(), file, path, hasher, written })
    }
}

impl Blobs {
    /// How many bytes of an upload are here; `None` if there is no such upload.
    #[must_use]
    pub fn upload_size(&self, name: &str) -> Option<u64> {
        let path = self.upload_path(name).ok()?;
        fs::symlink_metadata(path).ok().map(|metadata| metadata.len())
    }

    /// Opens what is here of a blob that is being downloaded, to read it while it grows.
    #[must_use]
    pub fn open_partial(&self, digest: &Digest) -> Option<File> {
        File::open(self.partial(digest)).ok()
    }

    fn upload_path(&self, name: &str) -> Result<PathBuf> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(good) {
            return Err(Error::invalid(format!(
                "name an upload {name:?}: want 1 to 64 of a-z0-9-"
            )));
        }
        Ok(self.ingest().join(format!("upload-{name}")))
    }
}

fn busy(name: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("write upload {name}: another request is writing it"))
}

impl Upload {
    /// How many bytes have come.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Exhausted`](ErrorKind::Exhausted) if the disk is full, or [`Io`](ErrorKind::Io).
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(source) = self.file.write_all(bytes) {
            // Cut back to what was hashed, so that the upload can go on where it was.
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
            return Err(Error::io("write", &self.path, source));
        }
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Verifies the content and makes it the durable blob `digest`, protected by `lease`. Returns its size in bytes. The
    /// upload is gone afterwards, also when its content is wrong.
    ///
    /// # Errors
    /// [`Integrity`](ErrorKind::Integrity) if the content hashes to something else.
    pub fn commit(mut self, lease: &Lease, digest: &Digest) -> Result<u64> {
        let found = match digest.algorithm() {
            Algorithm::Sha256 => self.hasher.finish(),
            other => {
                let mut hasher = Hasher::new(other);
                let rewound = self.file.seek(SeekFrom::Start(0));
                let hashed = rewound.and_then(|_| hasher.drain(&mut self.file));
                hashed.map_err(|source| Error::io("read", &self.path, source))?;
                hasher.finish()
            }
        };
        let remove = |path: &PathBuf| {
            fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
        };
        if found != *digest {
            remove(&self.path)?;
            return Err(Error::integrity(format!(
                "verify upload: the content hashes to {found} instead of {digest}"
            )));
        }
        lease.protect([digest])?;
        if self.blobs.contains(digest) {
            remove(&self.path)?;
        } else {
            self.blobs.publish(&self.file, &self.path, digest)?;
        }
        Ok(self.written)
    }

    /// Gives the upload up and removes what came.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the file cannot be removed.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|source| Error::io("remove", &self.path, source))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_upload_goes_on_where_it_stopped_and_has_one_writer() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut upload = store.create_upload("a-1").unwrap();
        upload.append(b"one ").unwrap();
        let busy = store.resume_upload("a-1").unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Conflict);
        drop(upload);
        assert_eq!(store.blobs().upload_size("a-1"), Some(4));
        let mut upload = store.resume_upload("a-1").unwrap();
        upload.append(b"two").unwrap();
        let lease = store.lease().unwrap();
        let digest = Digest::of(b"one two");
        assert_eq!(upload.commit(&lease, &digest).unwrap(), 7);
        assert_eq!(store.blobs().read(&digest, 10).unwrap(), b"one two");
        assert_eq!(store.blobs().upload_size("a-1"), None);
    }

    #[test]
    fn wrong_content_is_no_blob_and_an_old_upload_is_collected() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut upload = store.create_upload("b").unwrap();
        upload.append(b"x").unwrap();
        let lease = store.lease().unwrap();
        let error = upload.commit(&lease, &Digest::of(b"y")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(store.blobs().list().unwrap().is_empty());
        let held = store.create_upload("c").unwrap();
        drop(store.create_upload("d").unwrap());
        store.collect_garbage(&[], Duration::ZERO).unwrap();
        assert_eq!(store.blobs().upload_size("d"), None);
        assert_eq!(store.blobs().upload_size("c"), Some(0), "it is being written");
        held.discard().unwrap();
        assert!(store.create_upload("../x").is_err());
    }
}
