//! The end of an image: its directories, in one run, then what of their entries does not fit beside their inodes.

use std::fs::File;

use rustix::fs::FileType;

use super::format::{
    BLOCK, BLOCK_BYTES, Dirent, Inode, Layout, SLOT, directory_size, encode_directory,
    encode_xattrs,
};
use super::image::{ROOT_OFFSET, block_number};
use super::tree::{Directory, DirectoryId, ImageTree, Node, ROOT};
use crate::error::Result;

/// Where a directory goes.
struct Place {
    id: DirectoryId,
    parent: DirectoryId,
    inode: Inode,
    offset: u64,
}

/// Writes the directories and the superblock.
pub(super) fn finish(mut tree: ImageTree<'_>) -> Result<File> {
    tree.writer.close_all()?;
    tree.writer.write_links()?;
    let mut places = gather(&mut tree);
    arrange(&mut tree, &mut places)?;
    let mut inodes = vec![0; tree.directories.len()];
    for place in &places {
        inodes[place.id] = place.offset / SLOT;
    }
    // Inodes first and blocks after them, each in the order of their places.
    for place in &places {
        let content = content(&tree.directories[place.id], place, &inodes);
        let mut bytes = place.inode.encode();
        bytes.extend(&content[inline_start(&place.inode)..]);
        tree.writer.write(place.offset, &bytes)?;
    }
    for place in &places {
        let whole = inline_start(&place.inode);
        if whole > 0 {
            let content = content(&tree.directories[place.id], place, &inodes);
            tree.writer.write(u64::from(place.inode.place) * BLOCK, &content[..whole])?;
        }
    }
    tree.writer.complete(ROOT_OFFSET)
}

/// All directories that have a name, the root first and parents before children.
fn gather(tree: &mut ImageTree<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut pending = vec![(ROOT, ROOT)];
    while let Some((id, parent)) = pending.pop() {
        let directory = &tree.directories[id];
        let mut links = 2;
        for node in directory.names.values() {
            if let Node::Directory(child) = node {
                pending.push((*child, id));
                links += 1;
            }
        }
        tree.writer.inodes += 1;
        let mut inode = Inode::new(FileType::Directory, &directory.attributes);
        // Overlayfs ignores the mark on a root.
        let opaque = directory.opaque && id != ROOT;
        inode.xattrs = encode_xattrs(&directory.attributes.xattrs, FileType::Directory, opaque);
        inode.size = directory_size(sorted(directory).into_iter().map(|(name, _)| name));
        (inode.number, inode.links) = (tree.writer.inodes, links);
        places.push(Place { id, parent, inode, offset: 0 });
    }
    places
}

/// Gives all of them their places.
fn arrange(tree: &mut ImageTree<'_>, places: &mut [Place]) -> Result<()> {
    let mut position = 0;
    for place in places.iter_mut() {
        let end = place.inode.size % BLOCK;
        let length = place.inode.length() as u64;
        let is_root = place.id == ROOT;
        // Attributes may cross blocks; the end of the entries may not, so it must fit behind them.
        if end > 0 && length + end <= BLOCK {
            place.inode.layout = Layout::Inline;
        }
        let whole = if place.inode.layout == Layout::Inline { length + end } else { length };
        if is_root {
            place.offset = ROOT_OFFSET;
            continue;
        }
        let left = BLOCK - position % BLOCK;
        if whole > left {
            position += left;
        }
        place.offset = position;
        position = (position + whole).next_multiple_of(SLOT);
    }
    let start = tree.writer.allocate(position.div_ceil(BLOCK))?;
    for place in places {
        if place.id != ROOT {
            place.offset += start;
        }
        let blocks = (inline_start(&place.inode) as u64).div_ceil(BLOCK);
        if blocks > 0 {
            place.inode.place = block_number(tree.writer.allocate(blocks)?)?;
        }
    }
    Ok(())
}

/// The part of the content that is in blocks of its own, in bytes.
fn inline_start(inode: &Inode) -> usize {
    let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
    match inode.layout {
        Layout::Plain => size,
        Layout::Inline => size - size % BLOCK_BYTES,
    }
}

/// The entries with `.` and `..` at their places in the order of bytes.
fn sorted(directory: &Directory) -> Vec<(&[u8], Option<&Node>)> {
    let mut names: Vec<(&[u8], Option<&Node>)> = vec![(b".", None), (b"..", None)];
    names.extend(directory.names.iter().map(|(name, node)| (&**name, Some(node))));
    names.sort_unstable_by_key(|(name, _)| *name);
    names
}

fn content(directory: &Directory, place: &Place, inodes: &[u64]) -> Vec<u8> {
    let dirent = |(name, node): (_, Option<&Node>)| -> Dirent<'_> {
        let (inode, kind) = match node {
            None if name == b"." => (inodes[place.id], FileType::Directory),
            None => (inodes[place.parent], FileType::Directory),
            Some(Node::Directory(id)) => (inodes[*id], FileType::Directory),
            Some(Node::Symlink { inode, .. }) => (*inode, FileType::Symlink),
            Some(Node::Other { inode, kind }) => (*inode, *kind),
            Some(Node::Whiteout { inode }) => (*inode, FileType::CharacterDevice),
        };
        Dirent { name, inode, kind }
    };
    encode_directory(&sorted(directory).into_iter().map(dirent).collect::<Vec<_>>())
}
