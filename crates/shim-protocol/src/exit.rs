//! `exit.json`: how a container ended and what is known of it, durable before anybody is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::attach::Stream;
use crate::error::{Cause, Error, Result};

/// How a container's init ended; `<bundle>/exit.json`.
///
/// The shim writes it before it answers Wait, so a manager that was away reads here what it missed. A record that
/// `delete` wrote for a shim that died has `error` set. Fields are only ever added: what an older shim wrote lacks
/// them, and what a newer one adds is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`ExitRecord::VERSION`] of the shim that wrote it.
    #[serde(default = "first_version")]
    pub version: u32,
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
    /// What its memory came to; absent without a memory controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryAtExit>,
    /// When the phases of its life began and ended.
    #[serde(default)]
    pub phases: Phases,
    /// The last lines that it wrote, the oldest first; empty where no log is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<LastLine>,
}

/// The memory of a container's cgroup when its init ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryAtExit {
    /// The most that was ever in use, where the kernel keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// The limit; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Processes that the kernel killed here for want of memory.
    #[serde(default)]
    pub oom_kills: u64,
    /// The last of them, where the kernel's log tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<OomVictim>,
}

/// A process that the kernel killed for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomVictim {
    /// Its command name, as in `/proc/<pid>/comm`.
    pub name: String,
    /// Its process id in the host's numbering.
    pub pid: u32,
}

/// When the phases of a container's life began and ended, as its shim saw them. Absent is what never was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Create was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creating_at: Option<Timestamp>,
    /// It was created: namespaces, mounts and cgroup are there, its program waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Start was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_at: Option<Timestamp>,
    /// Its end was written down, after its last output was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<Timestamp>,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLine {
    /// `stdout`, which a terminal's output counts as, or `stderr`.
    pub stream: String,
    /// Its text without the newline; the end of it when it is long. Bytes that are not UTF-8 are U+FFFD.
    pub text: String,
}

impl LastLine {
    /// A line of a stream.
    #[must_use]
    pub fn new(stream: Stream, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        Self { stream: stream.name().to_owned(), text }
    }
}

/// Shims before versions wrote none.
fn first_version() -> u32 {
    1
}

impl ExitRecord {
    /// The file's name in the bundle.
    pub const FILE_NAME: &'static str = "exit.json";

    /// The version of this release: 2 since it tells of memory, phases and last lines.
    pub const VERSION: u32 = 2;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_older_and_newer_shims_are_read() {
        let bundle = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(bundle.path().join("exit.json"), text).unwrap();
        write(
            r#"{"pid":7,"exit_code":3,"oom_killed":false,"exited_at":"2026-11-24T04:15:19.000000001Z"}"#,
        );
        let old = ExitRecord::read(bundle.path()).unwrap();
        assert_eq!((old.version, old.pid, old.exit_code, old.memory), (1, 7, 3, None));
        let whole = ExitRecord {
            version: ExitRecord::VERSION,
            memory: Some(MemoryAtExit { oom_kills: 1, ..MemoryAtExit::default() }),
            last_lines: vec![LastLine::new(Stream::Stderr, b"bad \xff")],
            ..ExitRecord::default()
        };
        whole.write(bundle.path()).unwrap();
        assert_eq!(ExitRecord::read(bundle.path()).unwrap(), whole);
        assert_eq!(whole.last_lines[0].text, "bad \u{fffd}");
        let mut newer = serde_json::to_value(&whole).unwrap();
        newer["version"] = 9.into();
        newer["hue"] = "red".into();
        write(&newer.to_string());
        assert_eq!(ExitRecord::read(bundle.path()).unwrap().version, 9);
    }
}
