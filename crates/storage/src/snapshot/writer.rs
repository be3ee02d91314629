//! A layer being written.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use brig_linux::path::Root;

use super::record::{Format, Record};
use super::{Durability, RECORD, Snapshots, Usage, copy_root, image, settle};
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
    /// Opened before anything is written, so that it is told of every write error.
    witness: Arc<OwnedFd>,
    lower: LowerLayers,
    usage: Usage,
    /// The archive has an entry for the top directory.
    root_described: bool,
    applied: bool,
    committed: bool,
}

impl LayerWriter {
    pub(super) fn new(
        snapshots: Snapshots,
        number: u64,
        record: Record,
        directory: Root,
    ) -> Result<Self> {
        let witness = settle::witness(&directory)?;
        let (below, parent) = (snapshots.clone(), record.parent.clone());
        let lower = LowerLayers::deferred(move || below.await_paths(parent.as_ref()));
        let usage = Usage::default();
        Ok(Self {
            snapshots,
            number,
            record,
            directory,
            witness,
            lower,
            usage,
            root_described: false,
            applied: false,
            committed: false,
        })
    }

    /// Writes an uncompressed layer archive; into an image only one. The reader is read to its end, also past the
    /// archive's own, so a reader that verifies a digest there has done so when this returns.
    ///
    /// # Errors
    /// `Integrity` for a malformed or hostile archive, `Exhausted` past a limit or on a full disk; the reader's own.
    pub fn apply(&mut self, reader: &mut dyn Read, options: &ApplyOptions) -> Result<Applied> {
        let applied = match self.record.format {
            Format::Directory => self.extract(reader, &options.limits),
            Format::Erofs => image::write(&self.directory, reader, &self.lower, &options.limits),
        };
        let applied = applied.attempt(|| format!("apply layer {}", self.record.key))?;
        self.applied = true;
        self.usage.bytes = self.usage.bytes.saturating_add(applied.size);
        self.usage.inodes = self.usage.inodes.saturating_add(applied.entries);
        Ok(applied)
    }

    fn extract(&mut self, reader: &mut dyn Read, limits: &Limits) -> Result<Applied> {
        let root = self.directory.subroot("fs").attempt(|| "open the layer".into())?;
        let mut target = Target::Layer(LayerTarget {
            root: &root,
            lower: &self.lower,
            root_is_opaque: false,
            root_described: false,
            copied: Vec::new(),
        });
        let applied = extract(reader, &mut target, limits)?;
        if let Target::Layer(layer) = &target {
            self.root_described |= layer.root_described;
        }
        Ok(applied)
    }

    /// Makes the layer complete under its key, after its parent.
    ///
    /// # Errors
    /// `NotFound` when the parent was not completed; the system's. A failed sync is final and the layer is removed.
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        if !self.applied {
            // A layer without an archive is empty, whatever its form.
            self.apply(&mut std::io::empty(), &ApplyOptions::default())?;
        }
        let attempt = || format!("commit layer {}", self.record.key);
        let below = self.snapshots.await_paths(self.record.parent.as_ref()).attempt(attempt)?;
        if let Some(below) = below.first()
            && self.record.format == Format::Directory
            && !self.root_described
        {
            copy_root(below, &self.directory).attempt(attempt)?;
        }
        self.record.usage = Some(self.usage);
        let is_later = durability == Durability::Later
            && self.snapshots.mark_unsettled(&self.directory, &self.record)?;
        let unsettled = if is_later {
            Some(Arc::clone(&self.witness))
        } else {
            let parent = self.record.parent.as_ref();
            if self.snapshots.is_unsettled(parent)? {
                self.snapshots.settle().attempt(attempt)?;
            }
            rustix::fs::syncfs(&self.witness).attempt(attempt)?;
            write_record(&self.directory, RECORD, &self.record)?;
            None
        };
        self.snapshots.complete(self.number, self.record.clone(), unsettled)?;
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
