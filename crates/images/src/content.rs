//! Content by digest: the `blobs/` of an OCI layout, and the `ingest/` where it arrives.
//!
//! ```text
//! blobs/sha256/<hex>          complete, verified, fsynced, read-only; never changes
//! ingest/sha256-<hex>         a partial blob whose digest is known: kept, so that a download can resume
//! ingest/new-<random>         a blob whose digest is not known yet; removed with its writer
//! ingest/upload-<name>        the same, but kept for its sender to go on: see [`Upload`]
//! ```
//!
//! One writer a blob: whoever writes `ingest/<digest>` holds an exclusive `flock` on it, across processes. Committing is
//! fsync, rename into `blobs/`, fsync of the directory; so a name in `blobs/` always means complete content, and a crash
//! leaves at most a partial file that the next writer continues.

pub(crate) mod arrival;
mod upload;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::Descriptor;
use crate::{Error, ErrorKind, Result};

use arrival::{Arrivals, Arriving, Growing};
pub use upload::Upload;

/// How the names of small files begin that are being replaced.
pub(crate) const LEFTOVER: &str = ".new-";

/// Read access to the blobs of a [`Store`](crate::Store). Writing goes through a [`Lease`](crate::Lease).
#[derive(Clone, Debug)]
pub struct Blobs {
    root: PathBuf,
    arrivals: Arrivals,
}

impl Blobs {
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let blobs = Self { root: root.to_owned(), arrivals: Arrivals::default() };
        for algorithm in Algorithm::ALL {
            create_dir(&blobs.directory(algorithm))?;
        }
        create_dir(&blobs.ingest())?;
        Ok(blobs)
    }

    /// Where the blob is or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory(digest.algorithm()).join(digest.hex())
    }

    /// Whether the blob is there, complete.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Whether the blob is there and its bytes are right, all of which are read.
    fn is_intact(&self, digest: &Digest) -> bool {
        let Ok(mut file) = File::open(self.path(digest)) else { return false };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.drain(&mut file).is_ok() && hasher.finish() == *digest
    }

    /// The size of the blob in bytes, if it is there.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Opens a blob for reading. The bytes are not checked again; [`read`](Self::read) and
    /// [`Store::layer`](crate::Store::layer) do.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the blob is not here.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::caused(
                ErrorKind::NotFound,
                format!("open blob {digest}: it is not in the store; pull the image again"),
                source,
            ),
            _ => Error::io("open blob", &path, source),
        })
    }

    /// Opens a blob that is complete or being written by this process, from its start.
    pub(crate) fn open_arriving(&self, digest: &Digest) -> Result<Stored> {
        // It may be completed, and so renamed, between the look and the opening.
        if let Some(arrival) = self.arrivals.find(digest)
            && let Ok(file) = File::open(self.partial(digest))
        {
            return Ok(Stored::Growing(Growing::new(file, arrival)));
        }
        self.open(digest).map(Stored::Complete)
    }

    /// Reads a small blob whole and checks it against its descriptor.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Integrity`](ErrorKind::Integrity) if bytes on disk are damaged,
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it is larger than `limit` bytes.
    pub fn read(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let file = self.open(digest)?;
        let mut bytes = Vec::new();
        let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::io("read blob", &self.path(digest), source))?;
        if bytes.len() > limit {
            return Err(Error::invalid(format!("read blob {digest}: larger than {limit} bytes")));
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::integrity(format!(
                "read blob {digest}: the bytes on disk are damaged (they hash to {found}); remove the image and pull it again"
            )));
        }
        Ok(bytes)
    }

    /// All blobs, in no order.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the directories cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            let directory = self.directory(algorithm);
            let entries = fs::read_dir(&directory);
            for entry in entries.map_err(|source| Error::io("list", &directory, source))? {
                let entry = entry.map_err(|source| Error::io("list", &directory, source))?;
                let name = entry.file_name();
                let text = format!("{}:{}", algorithm.name(), name.to_string_lossy());
                found.extend(Digest::parse(&text).ok());
            }
        }
        Ok(found)
    }

    /// Removes a blob and returns the bytes that freed, zero if it was not there.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<u64> {
        let size = self.size(digest).unwrap_or(0);
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(size),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(Error::io("remove blob", &path, source)),
        }
    }

    pub(crate) fn directory(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Starts or continues writing a blob, unless someone else is at it.
    pub(crate) fn try_writer(&self, target: &Descriptor) -> Result<Acquired> {
        self.try_writer_unless(target, |blobs| blobs.size(&target.digest) == Some(target.size))
    }

    /// The same for a blob whose bytes on disk are known to be damaged: committing replaces it.
    pub(crate) fn try_replacement(&self, target: &Descriptor) -> Result<Acquired> {
        self.try_writer_unless(target, |_| false)
    }

    fn try_writer_unless(
        &self,
        target: &Descriptor,
        exists: impl Fn(&Self) -> bool,
    ) -> Result<Acquired> {
        let path = self.partial(&target.digest);
        loop {
            if exists(self) {
                return Ok(Acquired::Exists);
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|source| Error::io("create", &path, source))?;
            if !try_lock(&file, &path)? {
                return Ok(Acquired::Busy);
            }
            // The previous holder may have committed or removed the file between our open and our lock.
            if is_same_file(&file, &path) {
                let blobs = self.clone();
                let writer = BlobWriter::resume(blobs, file, path, target)?;
                return Ok(Acquired::Writer(Box::new(writer)));
            }
        }
    }

    pub(crate) fn anonymous(&self) -> Result<AnonymousWriter> {
        let ingest = self.ingest();
        let file = tempfile::Builder::new().prefix("new-").tempfile_in(&ingest);
        let file = file.map_err(|source| Error::io("create a file in", &ingest, source))?;
        try_lock(file.as_file(), file.path())?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(AnonymousWriter { blobs: self.clone(), file, hasher, written: 0 })
    }

    /// Makes a complete, verified and synced file the blob `digest`.
    fn publish(&self, file: &File, from: &Path, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let publish = || -> io::Result<()> {
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            fs::rename(from, &path)
        };
        publish().map_err(|source| Error::io("store blob", &path, source))?;
        sync_dir(&self.directory(digest.algorithm()))
    }
}

/// A blob to read.
#[derive(Debug)]
pub(crate) enum Stored {
    Complete(File),
    Growing(Growing),
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Complete(file) => file.read(buffer),
            Self::Growing(growing) => growing.read(buffer),
        }
    }
}

/// What asking to write a blob gives.
#[derive(Debug)]
pub enum Acquired {
    /// The blob is complete already.
    Exists,
    /// Another writer, maybe in another process, is writing it.
    Busy,
    /// Write the rest.
    Writer(Box<BlobWriter>),
}

/// Writes one blob of known digest and size. Dropped before [`commit`](Self::commit), what was written stays for the next
/// writer to continue.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    file: File,
    path: PathBuf,
    target: Descriptor,
    hasher: Hasher,
    written: u64,
    arriving: Arriving,
}

impl BlobWriter {
    /// Takes up where an earlier writer stopped.
    fn resume(blobs: Blobs, mut file: File, path: PathBuf, target: &Descriptor) -> Result<Self> {
        let mut hasher = Hasher::new(target.digest.algorithm());
        let written = hasher.drain(&mut file);
        let written = written.map_err(|source| Error::io("read", &path, source))?;
        let arriving = blobs.arrivals.begin(&target.digest, written, target.size);
        let target = target.clone();
        let mut writer = Self { blobs, file, path, target, hasher, written, arriving };
        if writer.written > writer.target.size {
            writer.restart()?;
        }
        Ok(writer)
    }

    /// How many bytes are there: where a download continues.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What is being written.
    #[must_use]
    pub fn target(&self) -> &Descriptor {
        &self.target
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the file cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        let rewind = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        rewind.map_err(|source| Error::io("truncate", &self.path, source))?;
        self.hasher = Hasher::new(self.target.digest.algorithm());
        self.written = 0;
        self.arriving.restart();
        Ok(())
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Integrity`](ErrorKind::Integrity) if that is more than the blob's size, [`Exhausted`](ErrorKind::Exhausted) if
    /// the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.target.size {
            let Descriptor { digest, size, .. } = &self.target;
            return Err(Error::integrity(format!(
                "write blob {digest}: more arrives than its {size} bytes"
            )));
        }
        if let Err(source) = self.file.write_all(bytes) {
            // How much of it went in is unknown: cut back to what was hashed, so that the partial file stays valid.
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
            return Err(Error::io("write", &self.path, source));
        }
        self.hasher.update(bytes);
        self.written = after;
        self.arriving.advance(after);
        Ok(())
    }

    /// Verifies size and digest and makes the blob visible and durable. Wrong content is removed.
    ///
    /// # Errors
    /// [`Integrity`](ErrorKind::Integrity) if the bytes are not what was asked for.
    pub fn commit(self) -> Result<()> {
        let Descriptor { digest, size, .. } = &self.target;
        if self.written < *size {
            return Err(Error::integrity(format!(
                "commit blob {digest}: only {} of {size} bytes arrived",
                self.written
            )));
        }
        let found = self.hasher.finish();
        if found != *digest {
            let removed = fs::remove_file(&self.path);
            removed.map_err(|source| Error::io("remove", &self.path, source))?;
            return Err(Error::integrity(format!(
                "verify blob {digest}: the content hashes to {found}; the source is damaged or tampered with"
            )));
        }
        self.blobs.publish(&self.file, &self.path, digest)
    }

    /// Removes what is there instead of keeping it for another writer.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the file cannot be removed.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|source| Error::io("remove", &self.path, source))
    }
}

/// Writes a blob whose digest turns out at the end. Dropped before commit, nothing stays.
#[derive(Debug)]
pub struct AnonymousWriter {
    blobs: Blobs,
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    written: u64,
}

impl AnonymousWriter {
    /// Digest and size of what was written.
    pub(crate) fn finish(self) -> (Digest, u64, Unpublished) {
        let Self { blobs, file, hasher, written } = self;
        (hasher.finish(), written, Unpublished { blobs, file })
    }
}

impl Write for AnonymousWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A complete file that is no blob yet.
pub(crate) struct Unpublished {
    blobs: Blobs,
    file: tempfile::NamedTempFile,
}

impl Unpublished {
    pub(crate) fn publish(self, digest: &Digest) -> Result<()> {
        // What is there may have been damaged since; these bytes are known to be right.
        if self.blobs.is_intact(digest) {
            return Ok(());
        }
        self.replace(digest)
    }

    /// Takes the place of a blob that is there already, damaged.
    pub(crate) fn replace(self, digest: &Digest) -> Result<()> {
        let (file, path) = self.file.into_parts();
        self.blobs.publish(&file, &path, digest)?;
        // The name is gone by the rename; the guard must not remove a successor of that name.
        path.keep().map_err(|error| Error::io("keep", &self.blobs.ingest(), error.error))?;
        Ok(())
    }
}

/// Takes an exclusive lock without waiting; false if it is held by another.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(source) => Err(Error::io("lock", path, source.into())),
    }
}

/// Whether `path` still names `file`.
pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| Error::io("create directory", path, source))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| Error::io("sync directory", path, source))
}

/// Replaces a small file atomically and durably.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(LEFTOVER).tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| Error::io("write", path, source))?;
    sync_dir(directory)
}
