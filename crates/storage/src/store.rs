//! The storage root: one process at a time, only for root.

use std::fs::File;
use std::path::{Path, PathBuf};

use brig_linux::path::Root;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::durable::private_directory;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::snapshot::{Format, Snapshots, check_support};
use crate::volume::Volumes;

/// Snapshots and volumes beneath one directory.
///
/// ```text
/// ROOT/              0700
/// ├── lock           held while open
/// ├── snapshots/     see [`Snapshots`]
/// └── volumes/       see [`Volumes`]
/// ```
#[derive(Debug)]
pub struct Storage {
    snapshots: Snapshots,
    volumes: Volumes,
    path: PathBuf,
    _lock: File,
}

impl Storage {
    /// Opens the storage, creating it where it is missing. What a crash left unfinished is put aside; call
    /// [`Snapshots::sweep`] afterwards, in the background, to delete it.
    ///
    /// # Errors
    /// `Conflict` while another process has it open; `Integrity` for a damaged record.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root, Format::default())
    }

    /// As [`Storage::open`], saying how new layers are kept. Those that are there stay as they are, and usable.
    ///
    /// # Errors
    /// Also `Unsupported` when the kernel cannot mount such layers.
    pub fn open_with(root: impl AsRef<Path>, format: Format) -> Result<Self> {
        let asked = root.as_ref();
        let attempt = || format!("open storage {}", asked.display());
        let path: PathBuf = std::path::absolute(asked).attempt(attempt)?;
        let host = Root::open("/").attempt(attempt)?;
        let directory = host
            .create_dir_all(&path, Mode::from_raw_mode(0o700))
            .and_then(Root::from_fd)
            .attempt(attempt)?;
        close_to_others(&directory).attempt(attempt)?;
        let lock = lock(&directory)?;
        if format == Format::Erofs {
            check_support(&directory, &path).attempt(attempt)?;
        }
        let snapshots = Snapshots::open(&directory, &path, format).attempt(attempt)?;
        let volumes = Volumes::open(private_directory(&directory, "volumes")?, &path)?;
        Ok(Self { snapshots, volumes, path, _lock: lock })
    }

    /// The directory that holds everything.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }
}

/// Files of containers, setuid ones among them, must not be reachable for users of the host.
fn close_to_others(directory: &Root) -> Result<()> {
    let attempt = || "set the mode of the storage root".to_owned();
    let open = directory
        .open_beneath("", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .attempt(attempt)?;
    rustix::fs::fchmod(&open, Mode::from_raw_mode(0o700)).attempt(attempt)
}

fn lock(directory: &Root) -> Result<File> {
    let attempt = || "lock the storage".to_owned();
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW;
    let file =
        directory.open_beneath("lock", flags, Mode::from_raw_mode(0o600)).attempt(attempt)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::new(
            ErrorKind::Conflict,
            "the storage is in use by another process; stop that, or use another root",
        )),
        other => other.attempt(attempt).map(|()| File::from(file)),
    }
}
