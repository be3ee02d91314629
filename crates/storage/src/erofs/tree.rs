//! The names of an image under construction. Paths mean here what they mean in a layer directory
//! ([`crate::layer::target::LayerTarget`]): links are followed inside, and what only the layers below have is taken after
//! them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use brig_linux::path::{LINKS_MAX, file_type};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::ImageWriter;
use super::format::Inode;
use super::image::Content;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::layer::lower::{Found, LowerLayers};
use crate::tarball::{Attributes, Time};

/// A directory's place in [`ImageTree::directories`].
pub(super) type DirectoryId = usize;

pub(super) const ROOT: DirectoryId = 0;

/// All names, and the writer that has their files.
pub(super) struct ImageTree<'a> {
    pub(super) writer: ImageWriter,
    pub(super) lower: &'a LowerLayers,
    pub(super) directories: Vec<Directory>,
    /// The archive wants everything below hidden; done at the end, since overlayfs ignores the mark on a root.
    pub(super) root_is_opaque: bool,
    pub(super) root_described: bool,
    /// The one inode of all whiteouts.
    whiteout: Option<u64>,
    now: Time,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) attributes: Attributes,
    pub(super) opaque: bool,
    pub(super) names: BTreeMap<Box<[u8]>, Node>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Directory(DirectoryId),
    Symlink {
        inode: u64,
        target: Box<[u8]>,
    },
    /// A file, device or FIFO.
    Other {
        inode: u64,
        kind: FileType,
    },
    Whiteout {
        inode: u64,
    },
}

impl Node {
    /// The inode, but for directories, which have none before the end.
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Self::Directory(_) => None,
            Self::Symlink { inode, .. } | Self::Other { inode, .. } | Self::Whiteout { inode } => {
                Some(*inode)
            }
        }
    }
}

impl<'a> ImageTree<'a> {
    pub(super) fn new(writer: ImageWriter, lower: &'a LowerLayers) -> Self {
        let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Time {
            seconds: i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: elapsed.subsec_nanos(),
        };
        let root = Directory { attributes: implied(now), ..Directory::default() };
        Self {
            writer,
            lower,
            directories: vec![root],
            root_is_opaque: false,
            root_described: false,
            whiteout: None,
            now,
        }
    }

    /// The directory at a path, created where it is missing, and its path without links.
    pub(super) fn locate(&mut self, path: &Path) -> Result<(DirectoryId, PathBuf)> {
        let attempt = || format!("enter directory {} of the layer", path.display());
        if let Some(found) = self.plain(path) {
            return Ok((found, path.to_owned()));
        }
        let mut steps: Vec<OsString> = path.iter().rev().map(Into::into).collect();
        // The directories on the way, with the names that lead to them.
        let mut way: Vec<(DirectoryId, OsString)> = Vec::new();
        let mut links_left = LINKS_MAX;
        while let Some(step) = steps.pop() {
            match step.as_bytes() {
                b"/" => way.clear(),
                b"." | b"" => {}
                b".." => drop(way.pop()),
                _ => match self.step(&way, &step).attempt(attempt)? {
                    Step::Into(id) => way.push((id, step)),
                    Step::Link(text) => {
                        links_left = links_left.checked_sub(1).ok_or_else(|| {
                            Error::integrity(format!("too many links at {}", path.display()))
                        })?;
                        steps.extend(Path::new(&text).iter().rev().map(Into::into));
                    }
                },
            }
        }
        let at = way.iter().map(|(_, name)| name).collect();
        Ok((way.last().map_or(ROOT, |(id, _)| *id), at))
    }

    /// The common case: it is there, and no link is on the way.
    fn plain(&self, path: &Path) -> Option<DirectoryId> {
        path.iter().try_fold(ROOT, |at, name| {
            match self.directories[at].names.get(name.as_bytes())? {
                Node::Directory(id) => Some(*id),
                _ => None,
            }
        })
    }

    fn step(&mut self, way: &[(DirectoryId, OsString)], name: &OsString) -> Result<Step> {
        let at = way.last().map_or(ROOT, |(id, _)| *id);
        let full = || -> PathBuf { way.iter().map(|(_, name)| name).chain([name]).collect() };
        match self.directories[at].names.get(name.as_bytes()) {
            Some(Node::Directory(id)) => return Ok(Step::Into(*id)),
            Some(Node::Symlink { target, .. }) => {
                return Ok(Step::Link(OsString::from_vec(target.to_vec())));
            }
            Some(Node::Whiteout { .. }) => {
                // Deleted below and made again here: nothing below may shine through.
                let made = Directory {
                    attributes: implied(self.now),
                    opaque: true,
                    ..Directory::default()
                };
                return Ok(Step::Into(self.put_directory(at, name.as_bytes(), made)));
            }
            Some(Node::Other { .. }) => {
                return Err(Errno::NOTDIR).attempt(|| format!("enter {}", full().display()));
            }
            None => {}
        }
        let hidden = self.root_is_opaque || way.iter().any(|(id, _)| self.directories[*id].opaque);
        let below = if hidden { None } else { self.lower.find(&full())? };
        let attributes = match &below {
            None => implied(self.now),
            Some(below) => match file_type(&below.stat) {
                FileType::Directory => attributes::read(below.fd.as_fd(), &below.stat)?,
                FileType::Symlink => return read_link(below).map(Step::Link),
                _ => return Err(Errno::NOTDIR).attempt(|| format!("enter {}", full().display())),
            },
        };
        let made = Directory { attributes, ..Directory::default() };
        Ok(Step::Into(self.put_directory(at, name.as_bytes(), made)))
    }

    pub(super) fn put_directory(
        &mut self,
        parent: DirectoryId,
        name: &[u8],
        directory: Directory,
    ) -> DirectoryId {
        let id = self.directories.len();
        self.directories.push(directory);
        self.put(parent, name, Node::Directory(id));
        id
    }

    /// Gives a name to something, in place of what has it.
    pub(super) fn put(&mut self, parent: DirectoryId, name: &[u8], node: Node) {
        match self.directories[parent].names.entry(name.into()) {
            Slot::Vacant(slot) => drop(slot.insert(node)),
            Slot::Occupied(mut slot) => {
                let replaced = slot.insert(node);
                self.forget(replaced);
            }
        }
    }

    /// Removes a name with all that is below it.
    pub(super) fn remove(&mut self, parent: DirectoryId, name: &[u8]) {
        if let Some(node) = self.directories[parent].names.remove(name) {
            self.forget(node);
        }
    }

    fn forget(&mut self, node: Node) {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            match node {
                Node::Directory(id) => {
                    pending.extend(std::mem::take(&mut self.directories[id].names).into_values());
                }
                Node::Symlink { inode, .. }
                | Node::Other { inode, .. }
                | Node::Whiteout { inode } => self.writer.link(inode, false),
            }
        }
    }

    /// One name more for a file that has one already.
    pub(super) fn link(&mut self, parent: DirectoryId, name: &[u8], node: Node) {
        if let Some(inode) = node.inode() {
            self.writer.link(inode, true);
        }
        self.put(parent, name, node);
    }

    /// Hides what the layers below have at a path, never what this layer has (OCI image-spec, layer.md).
    pub(super) fn hide(&mut self, parent: DirectoryId, path: &Path, name: &[u8]) -> Result<()> {
        match self.directories[parent].names.get(name) {
            Some(Node::Directory(id)) => {
                let id = *id;
                self.directories[id].opaque = true;
                return Ok(());
            }
            Some(_) => return Ok(()),
            None => {}
        }
        // A mark without anything to hide would show up as a device in a directory that is not merged.
        if self.lower.find(path)?.is_none() {
            return Ok(());
        }
        if let Some(inode) = self.whiteout {
            self.link(parent, name, Node::Whiteout { inode });
            return Ok(());
        }
        let attributes = Attributes { mode: 0o600, modified: self.now, ..Attributes::default() };
        let inode = self.writer.small(Inode::new(FileType::CharacterDevice, &attributes), &[])?;
        self.whiteout = Some(inode);
        self.put(parent, name, Node::Whiteout { inode });
        Ok(())
    }

    /// An opaque root: each name of the layers below is hidden by itself. And a root that the archive does not describe
    /// is as the one below.
    pub(super) fn finish_root(&mut self) -> Result<()> {
        if self.root_is_opaque {
            for name in self.lower.names(Path::new(""))? {
                self.hide(ROOT, Path::new(&name), name.as_bytes())?;
            }
        }
        if !self.root_described
            && let Some(below) = self.lower.find(Path::new(""))?
        {
            self.directories[ROOT].attributes = attributes::read(below.fd.as_fd(), &below.stat)?;
        }
        Ok(())
    }

    /// Copies a file of the layers below into this one, as overlayfs does before it is linked.
    pub(super) fn copy_up(
        &mut self,
        parent: DirectoryId,
        path: &Path,
        name: &[u8],
    ) -> Result<Node> {
        let attempt = || format!("copy {} from the layer below", path.display());
        let below = self.lower.find(path)?.ok_or(Errno::NOENT).attempt(attempt)?;
        let copied = attributes::read(below.fd.as_fd(), &below.stat)?;
        let node = match file_type(&below.stat) {
            FileType::RegularFile => {
                let source = attributes::magic_path(below.fd.as_fd());
                let mut source = File::open(source).attempt(attempt)?;
                let size = u64::try_from(below.stat.st_size).unwrap_or(0);
                let content = Content { size, pieces: None };
                let inode = self.writer.file(&copied, &content, &mut source).attempt(attempt)?;
                Node::Other { inode, kind: FileType::RegularFile }
            }
            FileType::Symlink => {
                let target = read_link(&below)?;
                let inode = Inode::new(FileType::Symlink, &copied);
                let inode = self.writer.small(inode, target.as_bytes()).attempt(attempt)?;
                Node::Symlink { inode, target: target.as_bytes().into() }
            }
            _ => {
                return Err(Error::integrity(
                    "a hard link points to a directory or device of a layer below",
                ));
            }
        };
        self.put(parent, name, node.clone());
        Ok(node)
    }
}

/// What one name on a path turns out to be.
enum Step {
    Into(DirectoryId),
    Link(OsString),
}

fn read_link(found: &Found) -> Result<OsString> {
    rustix::fs::readlinkat(&found.fd, "", Vec::new())
        .map(|text| OsString::from_vec(text.into_bytes()))
        .attempt(|| "read a link of a layer below".into())
}

/// What directories get that no entry describes.
fn implied(now: Time) -> Attributes {
    Attributes { mode: 0o755, modified: now, ..Attributes::default() }
}

/// The names of an archive's entry in its directory cannot be longer than the filesystem allows.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > 255 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("a name of {} bytes; 255 are allowed", name.len()),
        ));
    }
    Ok(())
}
