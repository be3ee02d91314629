//! What is kept of a container between calls.
//!
//! ```text
//! <root>/                 0700
//!   <id>/                 0700   made first, removed last: whoever makes it owns the id
//!     state.json                 this module; replaced by rename, format version inside
//!     config.json                the configuration as it was at create
//!     start.sock                 init listens here until it is started
//!     notify/notify.sock         of a container that says when it is ready, bound by whoever starts it
//! ```
//!
//! The directory itself is the lock (flock(2)): create, start, kill, delete and update hold it. It lies on a tmpfs,
//! so nothing is synced to disk: after a power cut neither the state nor the container is there.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::bundle::Config;
use crate::cgroup::Placement;
use crate::cgroup::systemd::Scope;
use crate::container::ContainerId;
use crate::error::{Error, ErrorKind, Result};
use crate::resctrl;

/// The format of `state.json`.
const FORMAT: u32 = 1;
/// The largest `state.json` that is read, in bytes.
const STATE_MAX: u64 = 4 << 20;
/// What it mostly fits in, in bytes.
const STATE_SIZE: usize = 4 << 10;
/// Room for `/proc/PID/stat`, of which the first 22 fields count, in bytes.
const STAT_SIZE: usize = 1 << 10;

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// 0 until init exists.
    pub(crate) pid: i32,
    /// The start time of init in clock ticks, which tells it from a later process with its number.
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: u32,
    pub(crate) cgroup: Placement,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// Whether the configuration has hooks that run after its start or its end, which alone need it then.
    #[serde(default = "unknown")]
    pub(crate) later_hooks: bool,
    /// The scope of its cgroup, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
    /// Its groups in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<resctrl::Groups>,
}

/// A state that does not tell was written before there was this field: better look.
fn unknown() -> bool {
    true
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    id: ContainerId,
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] OwnedFd);

impl Directory {
    /// Makes the directory of a new container, and the root above it.
    ///
    /// # Errors
    /// `AlreadyExists` when the id is taken.
    pub(crate) fn create(root: &Path, id: &ContainerId) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let directory = Self { path: root.join(id.as_str()), id: id.clone() };
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let made = builder.create(&directory.path).or_else(|source| {
            if source.kind() != std::io::ErrorKind::NotFound {
                return Err(source);
            }
            builder.clone_recursive().create(root)?;
            builder.create(&directory.path)
        });
        match made {
            Ok(()) => Ok(directory),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = format!("container {id} exists already");
                Err(Error::new(ErrorKind::AlreadyExists, text)
                    .with_advice("delete it or choose another id"))
            }
            Err(source) => Err(Error::system(format!("make {}", directory.path.display()), source)),
        }
    }

    /// The directory of a container that exists.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn open(root: &Path, id: &ContainerId) -> Result<Self> {
        let path = root.join(id.as_str());
        if path.is_dir() {
            return Ok(Self { path, id: id.clone() });
        }
        Err(Error::new(ErrorKind::NotFound, format!("container {id} does not exist")))
    }

    /// Waits for and takes the container's lock.
    ///
    /// # Errors
    /// `NotFound` when it was deleted meanwhile.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let attempt = || format!("lock container {}", self.id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &self.path, flags, Mode::empty())
            .map_err(|errno| Error::system(attempt(), errno))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, FlockOperation::LockExclusive))
            .map_err(|errno| Error::system(attempt(), errno))?;
        Ok(Lock(fd))
    }

    /// Whether somebody holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.path, flags, Mode::empty())
            .is_ok_and(|fd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared).is_err())
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The directory itself.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where init listens for the start.
    pub(crate) fn start_socket(&self) -> PathBuf {
        self.path.join("start.sock")
    }

    /// What is bound into a container that says when it is ready.
    pub(crate) fn notify(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// Keeps the configuration.
    pub(crate) fn write_config(&self, bytes: &[u8]) -> Result<()> {
        let path = self.path.join("config.json");
        std::fs::write(&path, bytes)
            .map_err(|source| Error::system(format!("write {}", path.display()), source))
    }

    /// The configuration at create.
    pub(crate) fn config(&self) -> Result<Config> {
        Config::load(&self.path.join("config.json"))
    }

    /// Replaces the state.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        let path = self.path.join("state.json");
        let attempt = || format!("write {}", path.display());
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::new(ErrorKind::Integrity, attempt()).with_source(error))?;
        let new = self.path.join("state.json.new");
        std::fs::write(&new, bytes)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|source| Error::system(attempt(), source))
    }

    /// The state; `None` while the container is still being made, or when its maker was killed before it wrote one.
    ///
    /// # Errors
    /// `Integrity` when it cannot be read.
    pub(crate) fn read(&self) -> Result<Option<State>> {
        use std::io::Read as _;
        let path = self.path.join("state.json");
        let attempt = || format!("read {}", path.display());
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return if self.path.is_dir() {
                    Ok(None)
                } else {
                    let text = format!("container {} does not exist", self.id);
                    Err(Error::new(ErrorKind::NotFound, text))
                };
            }
            Err(source) => return Err(Error::system(attempt(), source)),
        };
        // Most states fit; room from the start lets the file be read at once.
        let mut bytes = Vec::with_capacity(STATE_SIZE);
        file.take(STATE_MAX)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::system(attempt(), source))?;
        parse(&bytes).map(Some).map_err(|error| error.context(attempt()))
    }

    /// Removes the directory and everything in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::system(format!("remove {}", self.path.display()), source))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the root with the same mode as the directory itself.
trait CloneRecursive {
    fn clone_recursive(&self) -> std::fs::DirBuilder;
}

impl CloneRecursive for std::fs::DirBuilder {
    fn clone_recursive(&self) -> std::fs::DirBuilder {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = Self::new();
        builder.mode(0o700).recursive(true);
        builder
    }
}

/// Parses `state.json`.
///
/// # Errors
/// `Integrity` when it is damaged, `Unsupported` when a later version wrote it.
pub(crate) fn parse(bytes: &[u8]) -> Result<State> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let damaged = |error: serde_json::Error| {
        Error::new(ErrorKind::Integrity, "parse the state").with_source(error)
    };
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    if header.format != FORMAT {
        let text = format!("state format {} is not {FORMAT}", header.format);
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

impl State {
    /// The state of a container as the specification defines it ("State" in its chapter on the runtime).
    pub(crate) fn as_oci(&self, status: &str) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": self.pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }

    /// The state of a container that is about to be made.
    pub(crate) fn new(id: &ContainerId, bundle: &Path, config: &Config, cgroup: Placement) -> Self {
        let spec = &config.spec;
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        Self {
            format: FORMAT,
            oci_version: spec.version().clone(),
            id: id.to_string(),
            pid: 0,
            start_time: 0,
            bundle: bundle.to_owned(),
            rootfs: bundle.join(root),
            created: timestamp(std::time::SystemTime::now()),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            owner: rustix::process::geteuid().as_raw(),
            cgroup,
            no_pivot: false,
            no_new_keyring: false,
            later_hooks: spec.hooks().as_ref().is_some_and(|hooks| {
                let some = |hooks: &Option<Vec<_>>| hooks.as_ref().is_some_and(|it| !it.is_empty());
                some(hooks.poststart()) || some(hooks.poststop())
            }),
            scope: None,
            resctrl: None,
        }
    }
}

/// A moment as RFC 3339 in UTC with nanoseconds.
pub(crate) fn timestamp(moment: std::time::SystemTime) -> String {
    let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 0000-03-01 in eras of 400 years, of which every one has 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

/// A process as the kernel's `/proc/PID/stat` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessFacts {
    /// `Z` and `X` are dead.
    pub(crate) status: char,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
}

/// Looks at a process; `None` when there is none.
pub(crate) fn process_facts(pid: i32) -> Option<ProcessFacts> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/{pid}/stat"), flags, Mode::empty()).ok()?;
    let mut text = [0; STAT_SIZE];
    let length = rustix::io::read(&file, &mut text).ok()?;
    parse_stat(&String::from_utf8_lossy(&text[..length]))
}

fn parse_stat(text: &str) -> Option<ProcessFacts> {
    // The name is in parentheses and may itself contain any of the characters around it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let status = fields.next()?.chars().next()?;
    Some(ProcessFacts { status, start_time: fields.nth(18)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.000000005Z");
    }

    #[test]
    fn process_names_cannot_confuse_the_parser() {
        let rest = "0 ".repeat(18);
        let text = format!("7 (a) R) b) S {rest}42 0");
        assert_eq!(parse_stat(&text), Some(ProcessFacts { status: 'S', start_time: 42 }));
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn damaged_and_later_states_are_told_apart() {
        assert_eq!(parse(b"{").unwrap_err().kind(), ErrorKind::Integrity);
        assert_eq!(parse(br#"{"format":2}"#).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_id_belongs_to_whoever_makes_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::parse("a").unwrap();
        let directory = Directory::create(&root.path().join("deep/er"), &id).unwrap();
        let error = Directory::create(&root.path().join("deep/er"), &id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(directory.read().unwrap().is_none());
        directory.remove().unwrap();
        assert_eq!(directory.read().unwrap_err().kind(), ErrorKind::NotFound);
    }
}
