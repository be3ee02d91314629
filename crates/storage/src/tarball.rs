//! The tar format: a strict streaming reader and a reproducible writer.
//!
//! Header blocks are decoded by the `tar` crate. Framing and extended headers are our own, for three reasons: pax values
//! may hold newlines (a file capability with a 0x0a byte does), which that crate takes for the end of the record; every
//! header must have a limit before it is read into memory; and where parsers are known to disagree about what an archive
//! holds, the archive is refused instead of being read one way here and another way by a scanner.

pub(crate) mod pax;
pub(crate) mod reader;
pub(crate) mod sparse;
pub(crate) mod writer;

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Limits on what an archive may ask for. All can be overridden; the defaults fit every real image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many entries an archive may hold.
    pub entries_max: u64,
    /// The longest path or link text, in bytes.
    pub path_bytes_max: usize,
    /// The largest extended header (pax or GNU long name), in bytes.
    pub header_bytes_max: u64,
    /// Names and values of one entry's extended attributes together, in bytes.
    pub xattr_bytes_max: usize,
    /// How many pieces a sparse file may have.
    pub sparse_pieces_max: usize,
    /// How long the whole stream may be, in bytes. Set it from the compressed size: see
    /// [`Limits::for_compressed_size`].
    pub stream_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 2_000_000,
            path_bytes_max: 4096,
            header_bytes_max: 1 << 20,
            xattr_bytes_max: 64 << 10,
            sparse_pieces_max: 100_000,
            stream_bytes_max: 1 << 40,
        }
    }
}

impl Limits {
    /// Bounds the expansion of a compressed layer: at most a thousandfold, once past one GiB.
    #[must_use]
    pub fn for_compressed_size(compressed_bytes: u64) -> Self {
        let expanded = compressed_bytes.saturating_mul(1000).max(1 << 30);
        Self { stream_bytes_max: expanded, ..Self::default() }
    }
}

/// One entry of an archive, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative, without `.` and `..`; empty for the root itself.
    pub(crate) path: PathBuf,
    pub(crate) kind: EntryKind,
    pub(crate) attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Bytes follow; `size` is the file's size.
    File {
        size: u64,
        sparse: Option<Vec<sparse::Piece>>,
    },
    Directory,
    /// The link's text, as it is.
    Symlink(OsString),
    /// Another entry's path, cleaned as `path` is.
    HardLink(PathBuf),
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    pub(crate) accessed: Option<Time>,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// A point in time: seconds since 1970, and nanoseconds forward from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Cleans an archive's path: no root, no `.`, and `..` only where it stays inside.
pub(crate) fn clean_path(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return Err(Error::integrity(format!(
                        "archive path {} climbs out of its root",
                        path.display()
                    )));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

pub(crate) fn over_limit(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Exhausted, format!("the archive exceeds a limit: {what}"))
}
