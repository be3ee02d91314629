//! Opening a tree: from a snapshot's mounts, or from a process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_linux::mount::{OverlayOptions, overlay};
use brig_linux::path::{Root, file_type};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::{Attached, Place, Tree, stat_fd};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::snapshot::Mount;

/// Something mounted into a stopped container: a volume or a bind.
#[derive(Debug)]
pub struct Attachment {
    /// Where the container sees it; links on the way are resolved inside the tree.
    pub path: PathBuf,
    /// The directory or file, opened (`O_PATH` will do).
    pub source: OwnedFd,
    /// Whether the container may not write it; then we do not either.
    pub read_only: bool,
}

impl Tree {
    /// The tree of a stopped container: what [`crate::Snapshots::mounts`] or `view` returned, mounted nowhere, with its
    /// volumes and binds at their places.
    ///
    /// # Errors
    /// `Denied` without the right to mount; the system's.
    pub fn of_snapshot(mounts: &[Mount], attachments: Vec<Attachment>) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a tree is one mount, not {}", mounts.len()),
            ));
        };
        let root = match mount.fstype.as_str() {
            "bind" => {
                Root::open(&mount.source).attempt(|| format!("open {}", mount.source.display()))?
            }
            "overlay" => open_overlay(mount)?,
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("a tree cannot be mounted as {other}"),
                ));
            }
        };
        let mut tree = Self { root, attachments: Vec::new() };
        // Shorter paths first, so that a volume inside a volume is resolved through the outer one.
        let mut attachments = attachments;
        attachments.sort_by_key(|attachment| attachment.path.components().count());
        for attachment in attachments {
            let path = tree.canonical(&attachment.path, true)?;
            let stat = stat_fd(attachment.source.as_fd(), &path)?;
            let place = if file_type(&stat) == FileType::Directory {
                Place::Directory(
                    Root::from_fd(attachment.source).attempt(|| "open a volume".into())?,
                )
            } else {
                Place::File(attachment.source)
            };
            tree.attachments.retain(|attached| attached.path != path);
            tree.attachments.push(Attached { path, place, read_only: attachment.read_only });
        }
        Ok(tree)
    }

    /// The tree that a running process sees, its mounts included. The descriptor keeps the number from meaning another
    /// process: it must still run after the tree was opened.
    ///
    /// # Errors
    /// `NotFound` when the process has ended.
    pub fn of_process(pid: u32, pidfd: BorrowedFd<'_>) -> Result<Self> {
        let attempt = || format!("open the root of process {pid}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())
            .attempt(attempt)?;
        let ended = brig_linux::pidfd::wait_end(pidfd, Some(Duration::ZERO)).attempt(attempt)?;
        if ended {
            return Err(Error::new(ErrorKind::NotFound, format!("process {pid} has ended")));
        }
        let root = Root::from_fd(fd).attempt(attempt)?;
        Ok(Self { root, attachments: Vec::new() })
    }
}

fn open_overlay(mount: &Mount) -> Result<Root> {
    let mut lower = Vec::new();
    let (mut upper, mut work) = (None, None);
    let mut extra = Vec::new();
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", list)) => lower = split_layers(list),
            Some(("upperdir", path)) => upper = Some(Path::new(path)),
            Some(("workdir", path)) => work = Some(Path::new(path)),
            Some((key, value)) => extra.push((key, Some(value))),
            // Read-only follows from having no upper directory.
            None if option == "ro" || option == "rw" => {}
            None => extra.push((option.as_str(), None)),
        }
    }
    let options = OverlayOptions { lower: &lower, upper, work, extra: &extra, attributes: 0 };
    overlay(&options).and_then(Root::from_fd).attempt(|| "mount the container's snapshot".into())
}

/// Undoes the escaping of the `lowerdir` option.
fn split_layers(list: &str) -> Vec<PathBuf> {
    let mut layers = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => layers.push(String::new()),
            '\\' => push_last(&mut layers, characters.next().unwrap_or('\\')),
            other => push_last(&mut layers, other),
        }
    }
    layers.into_iter().map(PathBuf::from).collect()
}

fn push_last(layers: &mut [String], character: char) {
    if let Some(last) = layers.last_mut() {
        last.push(character);
    }
}
