//! Reading an archive into an image: what [`crate::layer::extract`] does to a directory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::ImageWriter;
use super::format::{self, Inode};
use super::image::Content;
use super::layout;
use super::tree::{Directory, DirectoryId, ImageTree, Node, ROOT, check_name};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::extract::Applied;
use crate::layer::lower::LowerLayers;
use crate::layer::{OPAQUE_NAME, WHITEOUT_PREFIX, is_bookkeeping};
use crate::tarball::reader::TarReader;
use crate::tarball::{Attributes, Entry, EntryKind, Limits};

/// Writes a whole archive as an image into an empty file, and reads its stream to the end.
pub(crate) fn apply(
    stream: &mut dyn Read,
    file: File,
    lower: &LowerLayers,
    limits: &Limits,
) -> Result<(Applied, File)> {
    let mut reader = TarReader::new(BufReader::with_capacity(64 << 10, stream), limits);
    let mut tree = ImageTree::new(ImageWriter::new(file), lower);
    let mut applied = Applied::default();
    while let Some(entry) = reader.next()? {
        applied.entries += 1;
        if let EntryKind::File { size, .. } = entry.kind {
            applied.size = applied.size.saturating_add(size);
        }
        place(&mut tree, &entry, &mut reader)
            .attempt(|| format!("extract {}", entry.path.display()))?;
    }
    tree.finish_root()?;
    let file = layout::finish(tree)?;
    reader.drain()?;
    Ok((applied, file))
}

fn place<R: Read>(
    tree: &mut ImageTree<'_>,
    entry: &Entry,
    reader: &mut TarReader<R>,
) -> Result<()> {
    let Some(name) = entry.path.file_name() else { return root(tree, entry) };
    let directory = entry.path.parent().unwrap_or_else(|| Path::new(""));
    if is_bookkeeping(directory) {
        return Ok(());
    }
    if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
        return whiteout(tree, directory, name.as_bytes(), hidden);
    }
    if matches!(entry.kind, EntryKind::CharacterDevice(0, 0)) {
        return Err(Error::integrity("device 0:0 would hide a file in overlayfs"));
    }
    for name in &entry.path {
        check_name(name.as_bytes())?;
    }
    let (parent, _) = tree.locate(directory)?;
    let name = name.as_bytes();
    let attributes = &entry.attributes;
    match &entry.kind {
        EntryKind::Directory => put_directory(tree, parent, name, attributes),
        EntryKind::File { size, sparse } => {
            let content = Content { size: *size, pieces: sparse.as_deref() };
            let inode = tree.writer.file(attributes, &content, &mut reader.content())?;
            tree.put(parent, name, Node::Other { inode, kind: FileType::RegularFile });
        }
        EntryKind::Symlink(text) => {
            let target = text.as_bytes();
            let inode = Inode::new(FileType::Symlink, attributes);
            let inode = tree.writer.small(inode, target)?;
            tree.put(parent, name, Node::Symlink { inode, target: target.into() });
        }
        EntryKind::HardLink(existing) if *existing == entry.path => {}
        EntryKind::HardLink(existing) => hard_link(tree, existing, parent, name)
            .attempt(|| format!("link to {}", existing.display()))?,
        EntryKind::CharacterDevice(major, minor) => {
            let place = format::device(*major, *minor)?;
            device(tree, parent, name, FileType::CharacterDevice, place, attributes)?;
        }
        EntryKind::BlockDevice(major, minor) => {
            let place = format::device(*major, *minor)?;
            device(tree, parent, name, FileType::BlockDevice, place, attributes)?;
        }
        EntryKind::Fifo => device(tree, parent, name, FileType::Fifo, 0, attributes)?,
    }
    Ok(())
}

/// The entry for the top directory itself.
fn root(tree: &mut ImageTree<'_>, entry: &Entry) -> Result<()> {
    if entry.kind != EntryKind::Directory {
        return Err(Error::integrity("the archive's root is not a directory"));
    }
    describe(&mut tree.directories[ROOT], &entry.attributes);
    tree.root_described = true;
    Ok(())
}

/// Attributes that an earlier entry set stay unless this one sets them again, as on a filesystem.
fn describe(directory: &mut Directory, attributes: &Attributes) {
    let earlier = std::mem::replace(&mut directory.attributes, attributes.clone());
    let xattrs = &mut directory.attributes.xattrs;
    for (name, value) in earlier.xattrs {
        if !xattrs.iter().any(|(present, _)| *present == name) {
            xattrs.push((name, value));
        }
    }
    xattrs.sort();
}

fn put_directory(
    tree: &mut ImageTree<'_>,
    parent: DirectoryId,
    name: &[u8],
    attributes: &Attributes,
) {
    let opaque = match tree.directories[parent].names.get(name) {
        Some(Node::Directory(id)) => {
            let id = *id;
            return describe(&mut tree.directories[id], attributes);
        }
        // What was there before, a whiteout included, hid the directory below; so must this one.
        Some(_) => true,
        None => false,
    };
    let made = Directory { attributes: attributes.clone(), opaque, ..Directory::default() };
    tree.put_directory(parent, name, made);
}

fn device(
    tree: &mut ImageTree<'_>,
    parent: DirectoryId,
    name: &[u8],
    kind: FileType,
    place: u32,
    attributes: &Attributes,
) -> Result<()> {
    let mut inode = Inode::new(kind, attributes);
    inode.place = place;
    let inode = tree.writer.small(inode, &[])?;
    tree.put(parent, name, Node::Other { inode, kind });
    Ok(())
}

fn hard_link(
    tree: &mut ImageTree<'_>,
    existing: &Path,
    parent: DirectoryId,
    name: &[u8],
) -> Result<()> {
    let not_named = || Error::integrity("a hard link points to the archive's root");
    let from_name = existing.file_name().ok_or_else(not_named)?.as_bytes();
    let (from, canonical) = tree.locate(existing.parent().unwrap_or_else(|| Path::new("")))?;
    let found = tree.directories[from].names.get(from_name).cloned();
    let node = match found {
        Some(node) => node,
        // Only the layers below have it: bring it up first, as overlayfs does.
        None => {
            let path = canonical.join(existing.file_name().unwrap_or_default());
            tree.copy_up(from, &path, from_name)?
        }
    };
    if matches!(node, Node::Directory(_) | Node::Whiteout { .. }) {
        return Err(Error::integrity(format!(
            "hard link to {}, which is no file",
            existing.display()
        )));
    }
    if (from, from_name) == (parent, name) {
        return Ok(());
    }
    tree.remove(parent, name);
    // The file may have been in a directory that just made way.
    if !tree.directories[from].names.contains_key(from_name) {
        return Err(Errno::NOENT).attempt(|| "link a file over its own directory".into());
    }
    tree.link(parent, name, node);
    Ok(())
}

/// Handles a `.wh.` entry.
fn whiteout(tree: &mut ImageTree<'_>, directory: &Path, name: &[u8], hidden: &[u8]) -> Result<()> {
    if name == OPAQUE_NAME.as_bytes() {
        if directory.as_os_str().is_empty() {
            tree.root_is_opaque = true;
            return Ok(());
        }
        let (id, _) = tree.locate(directory)?;
        tree.directories[id].opaque = true;
        return Ok(());
    }
    if name.starts_with(b".wh..wh.") {
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!("whiteout {} does not name a file", name.escape_ascii()),
        ));
    }
    check_name(hidden)?;
    let (parent, canonical) = tree.locate(directory)?;
    let path = canonical.join(std::ffi::OsStr::from_bytes(hidden));
    tree.hide(parent, &path, hidden)
}
