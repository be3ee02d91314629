//! Layers as EROFS images, written while the archive is read.
//!
//! ```text
//! block 0          superblock, written last
//! blocks 1 to 32   the root's inode (its number must fit 16 bits) and attributes; mostly a hole
//! then             as the archive goes: whole blocks of content, and blocks in which inodes stand with the ends of
//!                  their contents
//! at the end       directories, whose entries are known only now
//! ```
//!
//! Nothing is compressed: what is read again is read from the page cache, and the archive is kept compressed anyway. Names
//! that hide layers below are as overlayfs wants them, so images and directories stack in any mixture. Sparse files are
//! holes of the image.
//!
//! Source: Linux, fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. Mounting an image straight from its file
//! needs Linux 6.12.

pub(crate) mod apply;
mod format;
mod image;
mod layout;
mod tree;

pub(crate) use image::ImageWriter;
