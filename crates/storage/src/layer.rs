//! Layers as overlayfs sees them: directories in which a character device 0:0 hides a name of the layers below and the
//! attribute `trusted.overlay.opaque` hides a whole directory (Linux, Documentation/filesystems/overlayfs.rst).
//!
//! [`lower`] looks names up in a stack of such layers without mounting it; [`extract`] writes an archive into one.

pub(crate) mod attributes;
pub(crate) mod directories;
pub(crate) mod extract;
pub(crate) mod lower;
pub(crate) mod target;

use rustix::fs::{FileType, Stat};

/// Marks a directory that hides what the layers below have at its place.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Prefix of whiteouts in archives (OCI image-spec, layer.md).
pub(crate) const WHITEOUT_PREFIX: &str = ".wh.";

/// The archive name that makes its directory opaque (OCI image-spec, layer.md).
pub(crate) const OPAQUE_NAME: &str = ".wh..wh..opq";

/// Whether a name of a layer is a whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    brig_linux::path::file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a path is in the bookkeeping of aufs (`.wh..wh.plnk/`, ...) that old images carry: no content.
pub(crate) fn is_bookkeeping(path: &std::path::Path) -> bool {
    path.iter().any(|name| name.as_encoded_bytes().starts_with(b".wh..wh."))
}

/// Whether an extended attribute is overlayfs' own, so that neither archives nor diffs may carry it.
pub(crate) fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
