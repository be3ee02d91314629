//! Small records that survive a power cut: written aside, synced, renamed, and the directory synced.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use brig_linux::path::Root;
use rustix::fs::{Mode, OFlags, RenameFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Attempt, Error, Result};

/// The largest record read back, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// Writes a record so that either the old or the new one is there, whenever the machine stops.
pub(crate) fn write_record(directory: &Root, name: &str, record: &impl Serialize) -> Result<()> {
    let attempt = || format!("write record {name}");
    let text = serde_json::to_vec(record).map_err(std::io::Error::from).attempt(attempt)?;
    let aside = format!("{name}.new");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
    let fd = directory.open_beneath(&aside, flags, Mode::from_raw_mode(0o600)).attempt(attempt)?;
    let mut file = File::from(fd);
    file.write_all(&text).attempt(attempt)?;
    file.sync_all().attempt(attempt)?;
    directory.rename(&aside, name, RenameFlags::empty()).attempt(attempt)?;
    sync_directory(directory)
}

/// Reads a record back.
pub(crate) fn read_record<T: DeserializeOwned>(directory: &Root, path: &Path) -> Result<T> {
    let attempt = || format!("read record {}", path.display());
    let text = directory.read(path, RECORD_BYTES_MAX).attempt(attempt)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::integrity(error.to_string()))
        .attempt(attempt)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Root) -> Result<()> {
    let attempt = || "sync a directory".to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = directory.open_beneath("", flags, Mode::empty()).attempt(attempt)?;
    rustix::fs::fsync(open.as_fd()).attempt(attempt)
}

/// A directory of ours, only for root, created where it is missing.
pub(crate) fn private_directory(parent: &Root, name: &str) -> Result<Root> {
    parent
        .create_dir_all(name, Mode::from_raw_mode(0o700))
        .and_then(Root::from_fd)
        .attempt(|| format!("create directory {name}"))
}
