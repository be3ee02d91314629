//! Options of the `local` driver: what is mounted at a volume's directory while it is in use.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use brig_linux::mount::{self, MountAttributes, attribute};
use brig_linux::path::Root;

use super::Volumes;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::snapshot::is_mount_point;

/// A parsed `type`/`device`/`o` triple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeMount {
    source: Source,
    attributes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Bind { path: PathBuf, recursive: bool },
    Filesystem { kind: String, device: String, options: Vec<(String, Option<String>)> },
}

impl VolumeMount {
    /// `None` for a volume that is a plain directory.
    pub(super) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        if options.is_empty() {
            return Ok(None);
        }
        if let Some(key) =
            options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o"))
        {
            return Err(invalid(format!(
                "volume option {key:?} is not supported; the local driver knows type, device and o"
            )));
        }
        let device = options.get("device").filter(|device| !device.is_empty());
        let device = device.ok_or_else(|| invalid("missing device in volume options".into()))?;
        let kind = options.get("type").map_or("", String::as_str);
        let mut words = Vec::new();
        let (mut attributes, mut bind) = (0, None);
        for word in options.get("o").map_or("", String::as_str).split(',') {
            match (word, attribute_of(word)) {
                ("" | "rw" | "suid" | "dev" | "exec", _) => {}
                ("bind", _) => bind = Some(false),
                ("rbind", _) => bind = Some(true),
                (_, Some(bit)) => attributes |= bit,
                _ => words.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        let source = match bind {
            Some(recursive) => {
                let path = PathBuf::from(device);
                if !path.is_absolute() {
                    return Err(invalid(format!("volume device {device} is not absolute")));
                }
                Source::Bind { path, recursive }
            }
            None if kind.is_empty() || kind == "none" => {
                return Err(invalid("missing type in volume options".into()));
            }
            None => {
                Source::Filesystem { kind: kind.into(), device: device.clone(), options: words }
            }
        };
        Ok(Some(Self { source, attributes }))
    }

    /// A detached mount of it.
    pub(super) fn open(&self) -> brig_linux::Result<OwnedFd> {
        match &self.source {
            Source::Bind { path, recursive } => {
                let bound = mount::bind(path, *recursive)?;
                if self.attributes != 0 {
                    let attributes = MountAttributes::default().set(self.attributes);
                    mount::set_attributes(bound.as_fd(), &attributes, *recursive).map_err(
                        |errno| brig_linux::Error::system("set the flags of a bind", errno),
                    )?;
                }
                Ok(bound)
            }
            Source::Filesystem { kind, device, options } => {
                let mut all = vec![("source", Some(device.as_str()))];
                all.extend(options.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
                mount::filesystem(kind, &all, self.attributes)
            }
        }
    }
}

impl Volumes {
    /// Makes a volume's content present at its mountpoint. For a volume with options this mounts there what they
    /// describe, unless it is mounted already; for a plain one nothing is to be done. Every user calls this before use.
    ///
    /// # Errors
    /// `NotFound`; the system's when the filesystem cannot be mounted.
    pub fn mount(&self, name: &str) -> Result<PathBuf> {
        let volume = self.inspect(name)?;
        let attempt = || format!("mount volume {name}");
        if let Some(options) = VolumeMount::parse(&volume.options)?
            && !is_mounted(&self.shared.root, name)?
        {
            let detached = options.open().attempt(attempt)?;
            let data = self.shared.root.resolve(Path::new(name).join("_data")).attempt(attempt)?;
            mount::attach(&detached, &data).attempt(attempt)?;
        }
        Ok(volume.mountpoint)
    }

    /// Undoes [`Volumes::mount`], when the last user is gone.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn unmount(&self, name: &str) -> Result<()> {
        let volume = self.inspect(name)?;
        if is_mounted(&self.shared.root, name)? {
            mount::detach(&volume.mountpoint).attempt(|| format!("unmount volume {name}"))?;
        }
        Ok(())
    }
}

/// Whether something is mounted at the volume's directory.
pub(super) fn is_mounted(volumes: &Root, name: &str) -> Result<bool> {
    is_mount_point(volumes, Path::new(name).join("_data"))
}

fn attribute_of(word: &str) -> Option<u64> {
    Some(match word {
        "ro" => attribute::READ_ONLY,
        "nosuid" => attribute::NO_SUID,
        "nodev" => attribute::NO_DEV,
        "noexec" => attribute::NO_EXEC,
        "noatime" => attribute::NO_ATIME,
        "relatime" => attribute::RELATIME,
        _ => return None,
    })
}

fn invalid(problem: String) -> Error {
    Error::new(ErrorKind::InvalidInput, problem)
}
