//! How a layer differs from what is below it: the list that `docker diff` prints and the archive of a commit.
//!
//! A name counts as changed when its kind, owner, mode, size, time, link text or attributes differ; a directory also
//! when something in it does (so that the archive has it), and a deleted directory is one deletion.
//!
//! What a runtime made to mount something on it is no change: an empty file or directory at a mount point that the caller
//! names, and a directory that was made for nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use brig_linux::path::{Root, file_type};
use rustix::fs::{FileType, Stat};

use crate::error::{Attempt, Result};
use crate::layer::lower::{Found, LowerLayers};
use crate::layer::{WHITEOUT_PREFIX, attributes, is_whiteout};
use crate::tarball::writer::{TarWriter, write_node};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path. The numbers are the Docker Engine API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// `C`
    Modified = 0,
    /// `A`
    Added = 1,
    /// `D`
    Deleted = 2,
}

pub(crate) fn changes(
    upper: &Root,
    lower: &LowerLayers,
    mount_points: &[&str],
) -> Result<Vec<Change>> {
    let relative = |point: &&str| PathBuf::from(point.trim_start_matches('/'));
    let mount_points = mount_points.iter().map(relative).collect();
    let mut walk = Walk { upper, lower, mount_points, left_out: 0, changes: Vec::new() };
    walk.directory(Path::new(""), Below::Directory)?;
    let absolute =
        |(path, kind): (PathBuf, ChangeKind)| Change { path: Path::new("/").join(path), kind };
    Ok(walk.changes.into_iter().map(absolute).collect())
}

/// Writes the changes as a layer archive.
pub(crate) fn write_tar(
    upper: &Root,
    lower: &LowerLayers,
    mount_points: &[&str],
    output: &mut impl Write,
) -> Result<()> {
    let mut tar = TarWriter::new(output);
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for change in changes(upper, lower, mount_points)? {
        let path = change.path.strip_prefix("/").unwrap_or(&change.path);
        if change.kind == ChangeKind::Deleted {
            let mut name = OsString::from(WHITEOUT_PREFIX);
            name.push(path.file_name().unwrap_or_default());
            tar.whiteout(&path.with_file_name(name))?;
            continue;
        }
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
            tracing::warn!(path = %path.display(), "a file named like a whiteout is left out");
            continue;
        }
        let node = upper.resolve_nofollow(path).attempt(|| format!("open {}", path.display()))?;
        write_node(&mut tar, &node, path, &mut links)?;
    }
    tar.finish()
}

/// What the layers below have at the directory being walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// A directory that shows through.
    Directory,
    /// A directory that this layer replaced.
    Replaced,
    Nothing,
}

struct Walk<'a> {
    upper: &'a Root,
    lower: &'a LowerLayers,
    /// Relative to the root.
    mount_points: Vec<PathBuf>,
    /// How many names were left out.
    left_out: usize,
    changes: Vec<(PathBuf, ChangeKind)>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, below: Below) -> Result<()> {
        let attempt = || format!("list {}", path.display());
        let listed = self.upper.read_dir(path).attempt(attempt)?;
        let names: BTreeSet<OsString> = listed.into_iter().map(|entry| entry.name).collect();
        let mut all: BTreeMap<OsString, bool> =
            names.into_iter().map(|name| (name, true)).collect();
        if below == Below::Replaced {
            for name in self.lower.names(path)? {
                all.entry(name).or_insert(false);
            }
        }
        for (name, present) in all {
            let path = path.join(name);
            if present {
                self.entry(&path, below)?;
            } else {
                self.changes.push((path, ChangeKind::Deleted));
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, below: Below) -> Result<()> {
        let attempt = || format!("look at {}", path.display());
        let fd = self.upper.resolve_nofollow(path).attempt(attempt)?;
        let stat = rustix::fs::fstat(&fd).attempt(attempt)?;
        let found = match below {
            Below::Nothing => None,
            Below::Directory | Below::Replaced => self.lower.find(path)?,
        };
        if is_whiteout(&stat) {
            if found.is_some() {
                self.changes.push((path.to_owned(), ChangeKind::Deleted));
            }
            return Ok(());
        }
        let at = self.changes.len();
        let kind = match &found {
            None => Some(ChangeKind::Added),
            Some(found) if differs(&fd, &stat, found)? => Some(ChangeKind::Modified),
            Some(_) => None,
        };
        let (is_added, is_point) =
            (found.is_none(), self.mount_points.iter().any(|point| point == path));
        let is_empty_file = file_type(&stat) == FileType::RegularFile && stat.st_size == 0;
        if is_added && is_point && is_empty_file {
            self.left_out += 1;
            return Ok(());
        }
        if let Some(kind) = kind {
            self.changes.push((path.to_owned(), kind));
        }
        if file_type(&stat) != FileType::Directory {
            return Ok(());
        }
        let left_out = self.left_out;
        let is_directory_below =
            found.is_some_and(|found| file_type(&found.stat) == FileType::Directory);
        let below = match (is_directory_below, below) {
            (false, _) => Below::Nothing,
            (true, Below::Replaced) => Below::Replaced,
            (true, _) if attributes::is_opaque(&fd) => Below::Replaced,
            (true, _) => Below::Directory,
        };
        self.directory(path, below)?;
        if kind.is_none() && self.changes.len() > at {
            self.changes.insert(at, (path.to_owned(), ChangeKind::Modified));
        }
        let is_bare = self.changes.len() == at + 1;
        if is_added && is_bare && (is_point || self.left_out > left_out) {
            self.changes.truncate(at);
            self.left_out += 1;
        }
        Ok(())
    }
}

fn differs(fd: &OwnedFd, stat: &Stat, below: &Found) -> Result<bool> {
    let old = &below.stat;
    let is_directory = file_type(stat) == FileType::Directory;
    if stat.st_mode != old.st_mode
        || stat.st_uid != old.st_uid
        || stat.st_gid != old.st_gid
        || stat.st_rdev != old.st_rdev
        || (!is_directory && stat.st_size != old.st_size)
        || (!is_directory && attributes::modified(stat) != attributes::modified(old))
    {
        return Ok(true);
    }
    Ok(attributes::read_xattrs(fd.as_fd())? != attributes::read_xattrs(below.fd.as_fd())?)
}
