//! The structures on disk, all little-endian.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;

use crate::error::{Error, ErrorKind, Result};
use crate::layer::is_overlay_attribute;
use crate::tarball::{Attributes, Time};

pub(super) const BLOCK_BITS: u8 = 12;
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
/// The same for lengths in memory.
pub(super) const BLOCK_BYTES: usize = 1 << BLOCK_BITS;
/// Where an inode may stand; its number counts these from the start of the image.
pub(super) const SLOT: u64 = 32;
pub(super) const SLOT_BYTES: usize = 32;
pub(super) const INODE_BYTES: usize = 64;
/// Where the link count stands in an inode.
pub(super) const LINKS_OFFSET: u64 = 44;
pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
const SUPERBLOCK_BYTES: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
const FEATURE_CHECKSUM: u32 = 1;
const FEATURE_MTIME: u32 = 2;
const DIRENT_BYTES: usize = 12;
const XATTR_HEADER_BYTES: usize = 12;

/// How an inode's content is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks.
    Plain = 0,
    /// In whole blocks but for the end, which follows the inode.
    Inline = 2,
}

/// All of an inode but its place.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: Time,
    pub(super) size: u64,
    /// The first block of the content, or a device number.
    pub(super) place: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    /// See [`encode_xattrs`].
    pub(super) xattrs: Vec<u8>,
}

impl Inode {
    /// An inode without content.
    pub(super) fn new(kind: FileType, attributes: &Attributes) -> Self {
        Self {
            layout: Layout::Plain,
            kind,
            // Links have no modes of their own.
            mode: if kind == FileType::Symlink { 0o777 } else { attributes.mode },
            owner: (attributes.uid, attributes.gid),
            modified: attributes.modified,
            size: 0,
            place: 0,
            number: 0,
            links: 1,
            xattrs: encode_xattrs(&attributes.xattrs, kind, false),
        }
    }

    /// The bytes of inode and attributes.
    pub(super) fn length(&self) -> usize {
        INODE_BYTES + self.xattrs.len()
    }

    /// The extended form of an inode, which has room for nanoseconds and 32-bit owners, and its attributes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let format = 1_u16 | (self.layout as u16) << 1;
        let xattr_count = match self.xattrs.len() {
            0 => 0,
            length => (length - XATTR_HEADER_BYTES) / 4 + 1,
        };
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend(format.to_le_bytes());
        bytes.extend(low16(xattr_count).to_le_bytes());
        let mode = (self.kind.as_raw_mode() & 0o170_000) | (self.mode & 0o7777);
        bytes.extend(low16(mode as usize).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.place.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.owner.0.to_le_bytes());
        bytes.extend(self.owner.1.to_le_bytes());
        bytes.extend(self.modified.seconds.to_le_bytes());
        bytes.extend(self.modified.nanoseconds.to_le_bytes());
        bytes.extend(self.links.to_le_bytes());
        bytes.resize(INODE_BYTES, 0);
        bytes.extend(&self.xattrs);
        bytes
    }
}

/// Extended attributes as they follow an inode; nothing when there are none. What the kernel would not take on such a
/// file in a directory is left out here too.
pub(super) fn encode_xattrs(
    xattrs: &[(OsString, Vec<u8>)],
    kind: FileType,
    opaque: bool,
) -> Vec<u8> {
    let mut bytes = vec![0; XATTR_HEADER_BYTES];
    for (name, value) in xattrs {
        let name = name.as_bytes();
        if is_overlay_attribute(name) {
            tracing::warn!(name = %name.escape_ascii(), "archive carries an overlayfs attribute; dropped");
            continue;
        }
        let user = name.starts_with(b"user.");
        if user && !matches!(kind, FileType::RegularFile | FileType::Directory) {
            tracing::warn!(name = %name.escape_ascii(), "user attribute is not allowed on this file");
            continue;
        }
        match split_name(name) {
            Some((index, rest)) => push_xattr(&mut bytes, index, rest, value),
            None => {
                tracing::warn!(name = %name.escape_ascii(), "extended attribute is not supported here");
            }
        }
    }
    if opaque {
        push_xattr(&mut bytes, TRUSTED, b"overlay.opaque", b"y");
    }
    if bytes.len() == XATTR_HEADER_BYTES { Vec::new() } else { bytes }
}

const TRUSTED: u8 = 4;

/// The index of a name's prefix, and what follows the prefix.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    let prefixes: [(u8, &[u8]); 3] = [(1, b"user."), (TRUSTED, b"trusted."), (6, b"security.")];
    for (index, prefix) in prefixes {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (!rest.is_empty() && rest.len() <= 255).then_some((index, rest));
        }
    }
    match name {
        b"system.posix_acl_access" => Some((2, b"")),
        b"system.posix_acl_default" => Some((3, b"")),
        _ => None,
    }
}

fn push_xattr(bytes: &mut Vec<u8>, index: u8, name: &[u8], value: &[u8]) {
    bytes.push(low8(name.len()));
    bytes.push(index);
    bytes.extend(low16(value.len()).to_le_bytes());
    bytes.extend(name);
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Lengths that the limits on archives keep in range.
fn low16(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn low8(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// A device number as the kernel's `new_encode_dev` has it.
pub(super) fn device(major: u32, minor: u32) -> Result<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("device {major}:{minor} does not exist on Linux"),
        ));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// One name in a directory.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) kind: FileType,
}

/// How many bytes a directory of these names, sorted, takes: all blocks but the last are whole.
pub(super) fn directory_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for name in names {
        let need = DIRENT_BYTES + name.len();
        if used + need > BLOCK_BYTES {
            (blocks, used) = (blocks + 1, 0);
        }
        used += need;
    }
    blocks * BLOCK + used as u64
}

/// The content of a directory. Entries come sorted by the bytes of their names.
pub(super) fn encode_directory(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut first, mut used) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let need = DIRENT_BYTES + entry.name.len();
        if used + need > BLOCK_BYTES {
            push_dirents(&mut bytes, &entries[first..at]);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
            (first, used) = (at, 0);
        }
        used += need;
    }
    push_dirents(&mut bytes, &entries[first..]);
    bytes
}

fn push_dirents(bytes: &mut Vec<u8>, entries: &[Dirent<'_>]) {
    let mut name_offset = entries.len() * DIRENT_BYTES;
    for entry in entries {
        bytes.extend(entry.inode.to_le_bytes());
        bytes.extend(low16(name_offset).to_le_bytes());
        bytes.extend([type_code(entry.kind), 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        bytes.extend(entry.name);
    }
}

/// The kernel's generic codes of file types (linux/fs_types.h).
fn type_code(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

/// The first block of an image.
pub(super) fn superblock(root: u16, inodes: u64, blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((FEATURE_CHECKSUM | FEATURE_MTIME).to_le_bytes());
    bytes.extend([BLOCK_BITS, 0]);
    bytes.extend(root.to_le_bytes());
    bytes.extend(inodes.to_le_bytes());
    // Time of building: inodes carry their own, and the same archive shall give the same image.
    bytes.extend([0; 12]);
    bytes.extend(blocks.to_le_bytes());
    // Inode numbers count from block 0; no shared attributes, no identifier, no name, no incompatible feature.
    bytes.resize(SUPERBLOCK_BYTES, 0);
    let mut block = vec![0; SUPERBLOCK_OFFSET];
    block.extend(bytes);
    block.resize(BLOCK_BYTES, 0);
    let checksum = crc32c(&block[SUPERBLOCK_OFFSET..]);
    block[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// The Castagnoli polynomial, all ones at the start and not inverted at the end, as the kernel's crc32c().
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0_u32, |mut sum, &byte| {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg());
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn devices_are_encoded_as_the_kernel_does() {
        assert_eq!(device(1, 3).unwrap(), 0x103);
        assert_eq!(device(0xfff, 0xf_ffff).unwrap(), 0xffff_ffff);
        assert!(device(0x1000, 0).is_err());
    }
}
