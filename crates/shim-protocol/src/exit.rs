//! `exit.json`: how a container ended, durable before anybody is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::error::{Cause, Error, Result};

/// How a container's init ended; `<bundle>/exit.json`.
///
/// The shim writes it before it answers Wait, so a manager that was away reads here what it missed. A record that
/// `delete` wrote for a shim that died has `error` set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Init's process id; 0 when it never ran.
    pub pid: u32,
    /// The exit code, or 128 plus the signal.
    pub exit_code: u32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// The kernel killed a process of the container's cgroup for want of memory.
    pub oom_killed: bool,
    /// When it was started; absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its end was seen.
    pub exited_at: Timestamp,
    /// Why the status is not the process's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ExitRecord {
    /// The file's name in the bundle.
    pub const FILE_NAME: &'static str = "exit.json";

    /// Reads a bundle's record.
    ///
    /// # Errors
    /// `NotFound` when the container has not ended, `Integrity` when the file is not a record.
    pub fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join(Self::FILE_NAME);
        let bytes = fs::read(&path)
            .map_err(|source| Error::from(Cause::ExitRecordRead { path: path.clone(), source }))?;
        serde_json::from_slice(&bytes).map_err(|source| Cause::ExitRecord { path, source }.into())
    }

    /// Writes a bundle's record: to a temporary file, synced, renamed, the directory synced.
    ///
    /// # Errors
    /// Any failure to do so; an older record stays whole.
    pub fn write(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(Self::FILE_NAME);
        self.write_to(bundle, &path)
            .map_err(|source| Cause::ExitRecordWrite { path, source }.into())
    }

    fn write_to(&self, bundle: &Path, path: &Path) -> io::Result<()> {
        let temporary = bundle.join(".exit.json.tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        File::open(bundle)?.sync_all()
    }
}
