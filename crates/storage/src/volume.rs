//! Named volumes of the `local` driver.
//!
//! ```text
//! volumes/
//! ├── data/             one directory per volume
//! │   ├── volume.json   name, labels, options, created
//! │   └── _data/        the content, or where a volume with options is mounted
//! ├── .new-3/           being created; completed by one rename
//! └── .removing-3/      being removed
//! ```
//!
//! Volume names start with a letter or digit, so ours with a dot cannot collide. How many containers use a volume is the
//! caller's knowledge; it must not remove one in use.

mod content;
mod options;
mod populate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brig_linux::path::Root;
use rustix::fs::{Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::durable::{private_directory, read_record, sync_directory, write_record};
use crate::error::{Attempt, Error, ErrorKind, Result};

pub use content::withdraw;

use options::VolumeMount;

/// The longest name, as a directory name must fit (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

/// The volumes of one storage root. Cloning gives another handle on the same.
#[derive(Clone, Debug)]
pub struct Volumes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Root,
    path: PathBuf,
    next: AtomicU64,
}

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct VolumeRequest {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
    pub name: String,
    /// Options of the `local` driver: `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Always `local`.
    pub driver: &'static str,
    /// The options it was created with.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The directory on the host.
    pub mountpoint: PathBuf,
    /// When it was created.
    pub created: OffsetDateTime,
}

/// `volume.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    name: String,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

impl Volumes {
    pub(crate) fn open(root: Root, storage_path: &Path) -> Result<Self> {
        let entries = root.read_dir("").attempt(|| "list the volumes".into())?;
        for entry in entries.iter().filter(|entry| is_ours(&entry.name.to_string_lossy())) {
            root.remove_all(&entry.name).attempt(|| "remove an unfinished volume".into())?;
        }
        let path = storage_path.join("volumes");
        Ok(Self { shared: Arc::new(Shared { root, path, next: AtomicU64::new(0) }) })
    }

    /// Creates a volume. One that exists is returned as it is when it has the same options, as Docker does.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name or option; `Conflict` when it exists with other options.
    pub fn create(&self, request: &VolumeRequest) -> Result<Volume> {
        check_name(&request.name)?;
        let _checked = VolumeMount::parse(&request.options)?;
        match self.inspect(&request.name) {
            Ok(volume) => return same_or_conflict(volume, request),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let attempt = || format!("create volume {}", request.name);
        let aside = format!(".new-{}", self.shared.next.fetch_add(1, Ordering::Relaxed));
        let made = self.build(&aside, request).and_then(|()| {
            self.shared
                .root
                .rename(&aside, &request.name, RenameFlags::NOREPLACE)
                .attempt(attempt)?;
            sync_directory(&self.shared.root)
        });
        if let Err(error) = made {
            drop(self.shared.root.remove_all(&aside));
            if error.kind() != ErrorKind::AlreadyExists {
                return Err(error);
            }
            // Somebody else was faster with the same name.
            return same_or_conflict(self.inspect(&request.name)?, request);
        }
        self.inspect(&request.name)
    }

    fn build(&self, aside: &str, request: &VolumeRequest) -> Result<()> {
        let directory = private_directory(&self.shared.root, aside)?;
        let record = Record {
            version: 1,
            name: request.name.clone(),
            options: request.options.clone(),
            labels: request.labels.clone(),
            created: OffsetDateTime::now_utc(),
        };
        let attempt = || format!("create volume {}", request.name);
        directory.create_dir("_data", Mode::from_raw_mode(0o755)).attempt(attempt)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let data = directory.open_beneath("_data", flags, Mode::empty()).attempt(attempt)?;
        rustix::fs::fchmod(&data, Mode::from_raw_mode(0o755)).attempt(attempt)?;
        write_record(&directory, "volume.json", &record)
    }

    /// All volumes, by name. A volume whose record cannot be read is reported and left out.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in self.shared.root.read_dir("").attempt(|| "list the volumes".into())? {
            let name = entry.name.to_string_lossy();
            if is_ours(&name) {
                continue;
            }
            match self.inspect(&name) {
                Ok(volume) => volumes.push(volume),
                Err(error) => tracing::warn!(volume = %name, ?error, "volume is unreadable"),
            }
        }
        volumes.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(volumes)
    }

    /// One volume.
    ///
    /// # Errors
    /// `NotFound`, also for a name that no volume can have.
    pub fn inspect(&self, name: &str) -> Result<Volume> {
        if check_name(name).is_err() {
            return Err(unknown(name));
        }
        let path = Path::new(name).join("volume.json");
        let record: Record = match read_record(&self.shared.root, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(unknown(name)),
            other => other?,
        };
        Ok(Volume {
            mountpoint: self.shared.path.join(name).join("_data"),
            name: record.name,
            driver: "local",
            options: record.options,
            labels: record.labels,
            created: record.created,
        })
    }

    /// Removes a volume and its content.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while something is mounted in it.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.inspect(name)?;
        if options::is_mounted(&self.shared.root, name)? {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "remove volume {name}: its filesystem is mounted; stop its containers first"
                ),
            ));
        }
        let attempt = || format!("remove volume {name}");
        let aside = format!(".removing-{}", self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.shared.root.rename(name, &aside, RenameFlags::NOREPLACE).attempt(attempt)?;
        sync_directory(&self.shared.root)?;
        self.shared.root.remove_all(&aside).attempt(attempt)
    }

    /// Removes the volumes that `unused` picks, continues past failures, and returns the removed names with the first
    /// failure, if any.
    pub fn prune(&self, unused: impl Fn(&Volume) -> bool) -> (Vec<String>, Option<Error>) {
        let (mut removed, mut failure) = (Vec::new(), None);
        let volumes = match self.list() {
            Ok(volumes) => volumes,
            Err(error) => return (removed, Some(error)),
        };
        for volume in volumes.into_iter().filter(unused) {
            match self.remove(&volume.name) {
                Ok(()) => removed.push(volume.name),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        (removed, failure)
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with('.')
}

fn same_or_conflict(volume: Volume, request: &VolumeRequest) -> Result<Volume> {
    if request.options.is_empty() || volume.options == request.options {
        return Ok(volume);
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("volume {} exists with other options; remove it first", request.name),
    ))
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("get {name}: no such volume"))
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let good = name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(allowed);
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "{name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed; to mount a host directory, use its absolute path"
        ),
    ))
}

impl fmt::Display for Volume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}
