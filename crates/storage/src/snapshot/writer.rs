//! A layer being written.

use std::io::Read;
use std::path::PathBuf;

use brig_linux::path::Root;
use rustix::fs::{Mode, OFlags};

use super::record::Record;
use super::{Snapshots, Usage};
use crate::durable::write_record;
use crate::error::{Attempt, Result};
use crate::layer::extract::{Applied, extract};
use crate::layer::lower::LowerLayers;
use crate::layer::target::{LayerTarget, Target};
use crate::tarball::Limits;

/// How an archive is applied.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// What the archive may ask for.
    pub limits: Limits,
}

impl ApplyOptions {
    /// The defaults, with the expansion bounded by the layer's compressed size in bytes.
    #[must_use]
    pub fn for_compressed_size(compressed_bytes: u64) -> Self {
        Self { limits: Limits::for_compressed_size(compressed_bytes) }
    }
}

/// A layer that is being written; dropped without [`LayerWriter::commit`], all of it is removed.
#[derive(Debug)]
#[must_use]
pub struct LayerWriter {
    snapshots: Snapshots,
    number: u64,
    record: Record,
    directory: Root,
    lower: LowerLayers,
    usage: Usage,
    committed: bool,
}

impl LayerWriter {
    pub(super) fn new(
        snapshots: Snapshots,
        number: u64,
        record: Record,
        directory: Root,
        lower: &[PathBuf],
    ) -> Result<Self> {
        let mut writer = Self {
            snapshots,
            number,
            record,
            directory,
            lower: LowerLayers::default(),
            usage: Usage::default(),
            committed: false,
        };
        writer.lower = LowerLayers::open(lower)?;
        Ok(writer)
    }

    /// Writes an uncompressed layer archive. The reader is read to its end, also past the archive's own, so a reader
    /// that verifies a digest there has done so when this returns.
    ///
    /// # Errors
    /// `Integrity` for a malformed or hostile archive, `Exhausted` past a limit or on a full disk; the reader's own.
    pub fn apply(&mut self, reader: &mut dyn Read, options: &ApplyOptions) -> Result<Applied> {
        let attempt = || format!("apply layer {}", self.record.key);
        let root = self.directory.subroot("fs").attempt(attempt)?;
        let mut target = Target::Layer(LayerTarget {
            root: &root,
            lower: &self.lower,
            root_is_opaque: false,
            copied: Vec::new(),
        });
        let applied = extract(reader, &mut target, &options.limits).attempt(attempt)?;
        self.usage.bytes = self.usage.bytes.saturating_add(applied.size);
        self.usage.inodes = self.usage.inodes.saturating_add(applied.entries);
        Ok(applied)
    }

    /// Syncs the files to disk and makes the layer complete under its key.
    ///
    /// # Errors
    /// The system's; a failed sync is final and the layer is removed.
    pub fn commit(mut self) -> Result<()> {
        let attempt = || format!("commit layer {}", self.record.key);
        // syncfs(2) reports write errors of the filesystem since Linux 5.8.
        let files = self
            .directory
            .open_beneath("fs", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .attempt(attempt)?;
        rustix::fs::syncfs(&files).attempt(attempt)?;
        self.record.usage = Some(self.usage);
        write_record(&self.directory, "record.json", &self.record)?;
        self.snapshots.complete(self.number, self.record.clone())?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if !self.committed {
            self.snapshots.abandon(&self.record.key, self.number);
        }
    }
}
