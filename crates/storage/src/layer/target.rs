//! The two places an archive is written to: a new layer, and a container's tree.
//!
//! They differ in how the directory of an entry is found, in whiteouts, and in what may replace what.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use brig_linux::path::{LINKS_MAX, Root, file_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes;
use super::is_whiteout;
use super::lower::LowerLayers;
use crate::error::{Attempt, Error, Result};
use crate::tarball::Time;
use crate::tree::Tree;

/// Where [`super::extract::extract`] writes.
pub(crate) enum Target<'a> {
    Layer(LayerTarget<'a>),
    Tree(TreeTarget<'a>),
}

/// A layer under construction: private to us, so nobody races; but links in it are the image's and stay inside.
pub(crate) struct LayerTarget<'a> {
    pub(crate) root: &'a Root,
    pub(crate) lower: &'a LowerLayers,
    /// The archive wants everything below hidden; done at the end, since overlayfs ignores the mark on a root.
    pub(crate) root_is_opaque: bool,
    /// The archive says what the root is like; else it is like the one below.
    pub(crate) root_described: bool,
    /// Directories copied from below, and the times that are theirs once the archive is written.
    pub(crate) copied: Vec<(PathBuf, Time)>,
}

/// A directory of a container's tree, which the container may be changing.
pub(crate) struct TreeTarget<'a> {
    pub(crate) tree: &'a Tree,
    /// Canonical path of the directory in the tree.
    pub(crate) base: PathBuf,
    pub(crate) options: TreeOptions,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TreeOptions {
    pub(crate) keep_kind: bool,
    pub(crate) owner: Option<(u32, u32)>,
}

impl Target<'_> {
    /// The directory for entries at `path`, created where it is missing.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<OwnedFd> {
        match self {
            Self::Layer(layer) => layer.locate(path).map(|(fd, _)| fd),
            Self::Tree(target) => target.tree.create_directory(&target.base.join(path)),
        }
    }
}

impl LayerTarget<'_> {
    /// The directory at a path, created where it is missing, and its path without links.
    ///
    /// Walks by itself where the kernel cannot: a name that this layer lacks may be a directory (whose attributes are
    /// then copied, as overlayfs would copy them up) or a link of the layers below.
    pub(crate) fn locate(&mut self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let attempt = || format!("enter directory {} of the layer", path.display());
        // The common case: it is there, and no link is on the way.
        match self.open_plain(path) {
            Ok(fd) => return Ok((fd, path.to_owned())),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno).attempt(attempt),
        }
        let mut steps: Vec<_> = path.components().rev().map(PathBuf::from_component).collect();
        let mut at = PathBuf::new();
        let mut links_left = LINKS_MAX;
        while let Some(step) = steps.pop() {
            match step.components().next() {
                Some(Component::ParentDir) => {
                    at.pop();
                }
                Some(Component::RootDir) => at.clear(),
                Some(Component::Normal(name)) => {
                    let Some(target) = self.step(&at, name).attempt(attempt)? else {
                        at.push(name);
                        continue;
                    };
                    links_left = links_left.checked_sub(1).ok_or_else(|| {
                        Error::integrity(format!("too many links at {}", path.display()))
                    })?;
                    steps.extend(target.components().rev().map(PathBuf::from_component));
                }
                _ => {}
            }
        }
        let fd = self.open_plain(&at).attempt(attempt)?;
        Ok((fd, at))
    }

    fn open_plain(&self, at: &Path) -> rustix::io::Result<OwnedFd> {
        let at = if at.as_os_str().is_empty() { Path::new(".") } else { at };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(self.root, at, flags, Mode::empty(), resolve)
    }

    /// Whether a directory of this layer, or one above it, hides what is below.
    fn hides_below(&self, at: &Path) -> bool {
        at.ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .any(|path| self.open_plain(path).is_ok_and(attributes::is_opaque))
            || self.root_is_opaque
    }

    /// Makes sure that `name` in the directory `at` is a directory of this layer; or returns a link's text.
    fn step(&mut self, at: &Path, name: &OsStr) -> Result<Option<PathBuf>> {
        let parent = self.open_plain(at).attempt(|| format!("open {}", at.display()))?;
        let full = at.join(name);
        match attributes::open_name(parent.as_fd(), name) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found).attempt(|| "stat".into())?;
                match file_type(&stat) {
                    FileType::Directory => return Ok(None),
                    FileType::Symlink => {
                        return self
                            .root
                            .read_link(&full)
                            .map(Some)
                            .attempt(|| format!("read link {}", full.display()));
                    }
                    _ if is_whiteout(&stat) => {
                        // Deleted below and made again here: nothing below may shine through.
                        rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                            .attempt(|| format!("replace whiteout {}", full.display()))?;
                        let made = make_directory(&parent, name)?;
                        attributes::set_opaque(&made)
                            .attempt(|| format!("make {} opaque", full.display()))?;
                        return Ok(None);
                    }
                    _ => return Err(Errno::NOTDIR).attempt(|| format!("enter {}", full.display())),
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).attempt(|| format!("look at {}", full.display())),
        }
        self.step_below(&parent, name, &full)
    }

    /// As [`Self::step`], for a name that this layer does not have yet.
    fn step_below(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        full: &Path,
    ) -> Result<Option<PathBuf>> {
        let below = if self.hides_below(full.parent().unwrap_or_else(|| Path::new(""))) {
            None
        } else {
            self.lower.find(full)?
        };
        let Some(below) = below else {
            make_directory(parent, name)?;
            return Ok(None);
        };
        match file_type(&below.stat) {
            FileType::Directory => {
                let made = make_directory(parent, name)?;
                let copied = attributes::read(below.fd.as_fd(), &below.stat)?;
                attributes::apply(made.as_fd(), &copied, FileType::Directory)?;
                self.copied.push((full.to_owned(), copied.modified));
                Ok(None)
            }
            FileType::Symlink => rustix::fs::readlinkat(&below.fd, "", Vec::new())
                .map(|text| Some(PathBuf::from(OsString::from_vec(text.into_bytes()))))
                .attempt(|| format!("read link {}", full.display())),
            _ => Err(Errno::NOTDIR).attempt(|| format!("enter {}", full.display())),
        }
    }
}

/// A directory with the mode that implied parents get, whatever our umask is.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let attempt = || format!("create directory {}", name.display());
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).attempt(attempt)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty()).attempt(attempt)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).attempt(attempt)?;
    Ok(made)
}

/// One component as a path of its own.
trait FromComponent {
    fn from_component(component: Component<'_>) -> PathBuf;
}

impl FromComponent for PathBuf {
    fn from_component(component: Component<'_>) -> PathBuf {
        Self::from(component.as_os_str())
    }
}
