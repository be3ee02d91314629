//! A container's file tree, for `cp`, `export` and reads of its files: stopped or running, and never running anything
//! inside it.
//!
//! A stopped container's tree is its overlay, mounted detached (nothing appears in any mount table), with its volumes
//! beside it; a running one's is `/proc/PID/root`. Either may be changing under our hands: another container may share
//! a volume, and a running one does as it likes. So a path is first walked to its canonical form (reading links as text,
//! each looked up beneath the root), and then opened once more beneath the root it lies in by `openat2`; what changed in
//! between can only lead elsewhere *inside* that root.
//!
//! Volumes are *attachments*: a canonical path and an open directory or file. The longest attachment that is a prefix of
//! a path owns it, as with mounts; links inside a volume are still relative to the container's root.

mod mounted;
mod read;
mod write;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use brig_linux::path::{LINKS_MAX, Root, file_type};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::error::{Attempt, Error, ErrorKind, Result};

pub use mounted::Attachment;
pub use read::PathStat;
pub use write::WriteOptions;

/// The file tree of one container.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    attachments: Vec<Attached>,
}

#[derive(Debug)]
struct Attached {
    path: PathBuf,
    place: Place,
    read_only: bool,
}

#[derive(Debug)]
enum Place {
    Directory(Root),
    File(OwnedFd),
}

/// Where a canonical path lies: a root, and the rest of the path beneath it.
struct Located<'a> {
    root: &'a Root,
    rest: PathBuf,
    read_only: bool,
}

impl Tree {
    /// Reads a regular file of at most `limit_bytes`, following links inside the tree.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for what is no regular file; `Exhausted` for a larger one.
    pub fn read_file(&self, path: impl AsRef<Path>, limit_bytes: u64) -> Result<Vec<u8>> {
        let path = self.canonical(path.as_ref(), true)?;
        let attempt = || format!("read {} in the container", path.display());
        if let Some(file) = self.attached_file(&path) {
            return read::read_descriptor(file, limit_bytes).attempt(attempt);
        }
        let located = self.locate(&path);
        located.root.read(&located.rest, limit_bytes).attempt(attempt)
    }

    /// The path without links in it, absolute. Names that do not exist are kept as they are.
    ///
    /// # Errors
    /// `InvalidInput` for too many links; the system's.
    pub fn canonical(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        let mut steps: Vec<OsString> = Vec::new();
        push_steps(&mut steps, path);
        let mut at = PathBuf::from("/");
        let mut links_left = LINKS_MAX;
        while let Some(step) = steps.pop() {
            if step == ".." {
                at.pop();
                continue;
            }
            if step == "/" {
                at = PathBuf::from("/");
                continue;
            }
            let next = at.join(&step);
            if steps.is_empty() && !follow_last {
                return Ok(next);
            }
            match self.link_text(&next)? {
                None => at = next,
                Some(text) => {
                    links_left = links_left.checked_sub(1).ok_or_else(|| {
                        Error::new(
                            ErrorKind::InvalidInput,
                            format!("too many links in {}", path.display()),
                        )
                    })?;
                    push_steps(&mut steps, &text);
                }
            }
        }
        Ok(at)
    }

    /// The text of a link at a canonical path; `None` for anything else, or nothing.
    fn link_text(&self, path: &Path) -> Result<Option<PathBuf>> {
        if self.attachments.iter().any(|attached| attached.path == path) {
            return Ok(None);
        }
        let located = self.locate(path);
        let attempt = || format!("look at {} in the container", path.display());
        match located.root.stat_nofollow(&located.rest) {
            Ok(stat) if file_type(&stat) == FileType::Symlink => {}
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                return Ok(None);
            }
            Err(error) => return Err(error).attempt(attempt),
        }
        match located.root.read_link(&located.rest) {
            Ok(text) => Ok(Some(text)),
            // It was a link a moment ago; what is there now is looked at when it is opened.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(error) => Err(error).attempt(attempt),
        }
    }

    fn locate(&self, path: &Path) -> Located<'_> {
        let mut best: Option<(&Path, &Root, bool)> = None;
        for attached in &self.attachments {
            let Place::Directory(root) = &attached.place else { continue };
            let deeper = best.is_none_or(|(path, ..)| attached.path.starts_with(path));
            if path.starts_with(&attached.path) && deeper {
                best = Some((&attached.path, root, attached.read_only));
            }
        }
        let (prefix, root, read_only) = best.unwrap_or_else(|| (Path::new("/"), &self.root, false));
        let rest = path.strip_prefix(prefix).unwrap_or(path).to_owned();
        Located { root, rest, read_only }
    }

    fn attached_file(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.attachments.iter().find_map(|attached| match &attached.place {
            Place::File(file) if attached.path == path => Some(file.as_fd()),
            _ => None,
        })
    }

    /// Refuses a path at which a volume or file is attached, unless a directory meets a directory there.
    pub(crate) fn check_attached(&self, path: &Path, is_directory: bool) -> Result<()> {
        let is_in_the_way = |attached: &Attached| {
            attached.path.file_name() == path.file_name()
                && !(is_directory && matches!(attached.place, Place::Directory(_)))
        };
        // Looking at names first: most archives have nothing to do with attachments.
        if !self.attachments.iter().any(is_in_the_way) {
            return Ok(());
        }
        let path = self.canonical(path, false)?;
        if self.attachments.iter().any(|it| it.path == path && is_in_the_way(it)) {
            return Err(busy(&path));
        }
        Ok(())
    }

    /// A tree that is one directory, ours to write.
    pub(crate) fn of_root(root: Root) -> Self {
        Self { root, attachments: Vec::new() }
    }

    /// Opens a directory, following links inside the tree.
    pub(crate) fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        let canonical = self.canonical(path, true)?;
        let node = self.node(&canonical)?;
        if file_type(&stat_fd(node.as_fd(), &canonical)?) == FileType::Directory {
            return Ok(node);
        }
        let problem = format!("{} is not a directory in the container", path.display());
        Err(Error::new(ErrorKind::InvalidInput, problem))
    }

    /// Opens what is at a canonical path, without following a link there.
    fn node(&self, path: &Path) -> Result<OwnedFd> {
        let attempt = || format!("open {} in the container", path.display());
        if let Some(file) = self.attached_file(path) {
            return file.try_clone_to_owned().attempt(attempt);
        }
        let located = self.locate(path);
        located.root.resolve_nofollow(&located.rest).attempt(attempt)
    }

    /// A directory at a path, created with its parents where it is missing.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<OwnedFd> {
        let path = self.canonical(path, true)?;
        let located = self.locate(&path);
        if located.read_only {
            return Err(read_only(&path));
        }
        located
            .root
            .create_dir_all(&located.rest, Mode::from_raw_mode(0o755))
            .attempt(|| format!("create {} in the container", path.display()))
    }

    /// The directory of a path's last name, and the name.
    pub(crate) fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let path = self.canonical(path, false)?;
        let located = self.locate(&path);
        located
            .root
            .parent(&located.rest)
            .attempt(|| format!("open the directory of {} in the container", path.display()))
    }

    fn directory_names(&self, path: &Path, node: &OwnedFd) -> Result<Vec<OsString>> {
        let attempt = || format!("list {} in the container", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(node, ".", flags, Mode::empty()).attempt(attempt)?;
        let entries = brig_linux::path::entries(open).attempt(attempt)?;
        let mut names: Vec<OsString> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        Ok(names)
    }
}

/// As Docker: what is mounted into a container is not replaced by a copy.
pub(crate) fn busy(path: &Path) -> Error {
    let problem = format!(
        "replace {}: it is mounted into the container (device or resource busy); copy to its source instead",
        path.display()
    );
    Error::new(ErrorKind::Conflict, problem)
}

fn read_only(path: &Path) -> Error {
    let problem = format!("{} is in a volume that is mounted read-only", path.display());
    Error::new(ErrorKind::Denied, problem)
}

fn push_steps(steps: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => steps.push(name.to_owned()),
            Component::ParentDir => steps.push("..".into()),
            Component::RootDir => steps.push("/".into()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn stat_fd(fd: BorrowedFd<'_>, path: &Path) -> Result<Stat> {
    rustix::fs::fstat(fd).attempt(|| format!("stat {} in the container", path.display()))
}
