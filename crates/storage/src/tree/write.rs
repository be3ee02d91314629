//! Writing into a tree: `PUT /containers/ID/archive`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use brig_linux::path::file_type;
use rustix::fs::FileType;

use super::{Tree, read_only, stat_fd};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::extract::{Applied, extract};
use crate::layer::target::{Target, TreeOptions, TreeTarget};
use crate::tarball::Limits;

/// How an archive is written into a tree.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Refuse to replace a directory by something else, or something else by a directory (`noOverwriteDirNonDir`).
    pub keep_kind: bool,
    /// Give everything to this user and group instead of the archive's (`copyUIDGID` with the container's user).
    pub owner: Option<(u32, u32)>,
    /// What the archive may ask for.
    pub limits: Limits,
}

impl Tree {
    /// Extracts an archive into a directory of the tree. Names like whiteouts are ordinary names here.
    ///
    /// # Errors
    /// `NotFound` when the directory is not there; `InvalidInput` when it is no directory, or for a kind that must be
    /// kept; `Denied` in a read-only volume; `Integrity` for a bad archive.
    pub fn write_tar(
        &self,
        path: impl AsRef<Path>,
        reader: &mut dyn Read,
        options: &WriteOptions,
    ) -> Result<Applied> {
        let base = self.canonical(path.as_ref(), true)?;
        let node = self.node(&base)?;
        if file_type(&stat_fd(node.as_fd(), &base)?) != FileType::Directory {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} is not a directory in the container", base.display()),
            ));
        }
        if self.locate(&base).read_only {
            return Err(read_only(&base));
        }
        let mut target = Target::Tree(TreeTarget {
            tree: self,
            base,
            options: TreeOptions { keep_kind: options.keep_kind, owner: options.owner },
        });
        extract(reader, &mut target, &options.limits)
    }
}
