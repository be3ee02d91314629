//! What an operation tells about itself while it runs.

use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::image::Image;
use crate::reference::Reference;

/// Receives [`Progress`]. Called from the operation's own task: be quick.
pub type Observer<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// One piece of news.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// The reference stands for this manifest or index.
    Resolved {
        /// What was asked for.
        reference: Reference,
        /// What it stands for now.
        digest: Digest,
    },
    /// An image of what was asked for is understood; its layers come now, unless they are there.
    Image(Arc<Image>),
    /// Something about one blob.
    Blob(BlobProgress),
}

/// The state of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobProgress {
    /// Which blob.
    pub digest: Digest,
    /// What it is.
    pub kind: BlobKind,
    /// Where it is at.
    pub state: BlobState,
}

/// What a blob is in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobKind {
    /// A manifest or index.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer.
    Layer,
}

/// Where a blob is at. `Exists`, `Mounted` and `Complete` are final.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobState {
    /// It waits for its turn, or for another download of the same blob.
    Waiting,
    /// It is being transferred. Reported at most some times a second, and at the end.
    Transferring {
        /// Bytes so far, those of an earlier attempt included.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The connection broke or the registry is busy; the transfer continues after a pause.
    Retrying {
        /// The pause.
        after: Duration,
        /// Why, for people.
        reason: String,
    },
    /// All bytes are here and are being checked and made durable.
    Verifying,
    /// Transferred and verified.
    Complete,
    /// It was there already.
    Exists,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: String,
    },
}

/// Reports on one blob.
#[derive(Clone, Copy)]
pub(super) struct BlobReporter<'a> {
    pub(super) observer: &'a Observer<'a>,
    pub(super) digest: &'a Digest,
    pub(super) kind: BlobKind,
}

impl BlobReporter<'_> {
    pub(super) fn report(&self, state: BlobState) {
        let digest = self.digest.clone();
        (self.observer)(Progress::Blob(BlobProgress { digest, kind: self.kind, state }));
    }
}
