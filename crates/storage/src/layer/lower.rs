//! The merged view of a stack of layers, computed without mounting it.
//!
//! Looking up a path asks each layer from the top: the first that has the name decides, and a whiteout, an opaque
//! directory or a non-directory on the way stops the search. Paths here are already free of links (each step opens with
//! `RESOLVE_NO_SYMLINKS`), so this is a pure function of names.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use brig_linux::path::{Root, entries, file_type};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{attributes, is_whiteout};
use crate::error::{Attempt, Result};

/// Committed layers, the topmost first.
#[derive(Default)]
pub(crate) struct LowerLayers {
    layers: OnceCell<Vec<Root>>,
    /// Says where they are, when they are first needed.
    directories: Option<Box<Directories>>,
}

type Directories = dyn Fn() -> Result<Vec<PathBuf>> + Send;

impl std::fmt::Debug for LowerLayers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LowerLayers").field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// What the merged view has at a path.
#[derive(Debug)]
pub(crate) struct Found {
    /// Opened `O_PATH`, in the layer that decides.
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
}

/// What one layer says about a path.
enum Verdict {
    Here(Found),
    /// Hidden here, or replaced on the way: layers below do not count.
    Stop,
    /// Nothing said.
    Below,
}

impl LowerLayers {
    pub(crate) fn open(directories: &[PathBuf]) -> Result<Self> {
        Ok(Self { layers: OnceCell::from(open_all(directories)?), directories: None })
    }

    /// Layers that may not be complete yet; the call waits for them. Most archives name no file below.
    pub(crate) fn deferred(
        directories: impl Fn() -> Result<Vec<PathBuf>> + Send + 'static,
    ) -> Self {
        Self { layers: OnceCell::new(), directories: Some(Box::new(directories)) }
    }

    fn layers(&self) -> Result<&[Root]> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        let layers = match &self.directories {
            Some(directories) => open_all(&directories()?)?,
            None => Vec::new(),
        };
        Ok(self.layers.get_or_init(|| layers))
    }

    /// What is at a path without links in it; the empty path is the root.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found>> {
        for layer in self.layers()? {
            match verdict(layer, path)? {
                Verdict::Here(found) => return Ok(Some(found)),
                Verdict::Stop => return Ok(None),
                Verdict::Below => {}
            }
        }
        Ok(None)
    }

    /// The names in a directory of the merged view; none when it is not a directory.
    pub(crate) fn names(&self, path: &Path) -> Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for layer in self.layers()? {
            match verdict(layer, path)? {
                Verdict::Below => continue,
                Verdict::Stop => break,
                Verdict::Here(found) if file_type(&found.stat) != FileType::Directory => break,
                Verdict::Here(found) => {
                    let reopened = layer
                        .open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                        .attempt(|| format!("open {} of a layer", path.display()))?;
                    for entry in entries(reopened).attempt(|| "list a layer".into())? {
                        if hidden.contains(&entry.name) {
                            continue;
                        }
                        if entry.file_type == FileType::CharacterDevice
                            && whiteout_at(&found.fd, &entry.name)?
                        {
                            if !names.contains(&entry.name) {
                                hidden.insert(entry.name);
                            }
                            continue;
                        }
                        names.insert(entry.name);
                    }
                    // The root's own mark is without effect in overlayfs.
                    if !path.as_os_str().is_empty() && attributes::is_opaque(&found.fd) {
                        break;
                    }
                }
            }
            if hides_below(layer, path)? {
                break;
            }
        }
        Ok(names)
    }
}

fn open_all(directories: &[PathBuf]) -> Result<Vec<Root>> {
    let open = |path: &PathBuf| Root::open(path).attempt(|| "open a parent layer".into());
    directories.iter().map(open).collect()
}

fn verdict(layer: &Root, path: &Path) -> Result<Verdict> {
    let attempt = || format!("look up {} in a layer", path.display());
    match open(layer, path) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd).attempt(attempt)?;
            if is_whiteout(&stat) {
                return Ok(Verdict::Stop);
            }
            Ok(Verdict::Here(Found { fd, stat }))
        }
        // Something on the way is not a directory in this layer.
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Verdict::Stop),
        Err(Errno::NOENT) => {
            if hides_below(layer, path)? {
                return Ok(Verdict::Stop);
            }
            Ok(Verdict::Below)
        }
        Err(errno) => Err(errno).attempt(attempt),
    }
}

/// Whether a directory above the path is whited out or opaque in this layer.
fn hides_below(layer: &Root, path: &Path) -> Result<bool> {
    for ancestor in path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        match open(layer, ancestor) {
            Ok(fd) => {
                let attempt = || format!("look up {} in a layer", ancestor.display());
                let stat = rustix::fs::fstat(&fd).attempt(attempt)?;
                if file_type(&stat) != FileType::Directory || attributes::is_opaque(&fd) {
                    return Ok(true);
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(errno) => {
                return Err(errno).attempt(|| format!("look up {} in a layer", ancestor.display()));
            }
        }
    }
    Ok(false)
}

fn whiteout_at(directory: &OwnedFd, name: &OsString) -> Result<bool> {
    rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map(|stat| is_whiteout(&stat))
        .attempt(|| format!("look at {} of a layer", name.display()))
}

fn open(layer: &Root, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // With O_PATH | O_NOFOLLOW a final link is returned; NO_SYMLINKS forbids the others but, since Linux 5.6, allows
    // exactly that final one.
    rustix::fs::openat2(
        layer.as_fd(),
        path,
        flags,
        Mode::empty(),
        resolve | ResolveFlags::NO_SYMLINKS,
    )
}
