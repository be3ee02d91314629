//! What is told of the layers of one pull.
//!
//! Layers are unpacked while they come. Readers know docker's order, in which a layer is extracted when its download is
//! complete: what is to be told of its unpacking waits for that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_images::registry::{BlobKind, BlobProgress, BlobState};

use super::transfer::downloading;
use crate::stream::{Progress, ProgressSender};

/// The lines about the layers of a pull, in order.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    sender: &'a ProgressSender,
    layers: Mutex<HashMap<String, Layer>>,
}

/// How far the download of a layer is.
#[derive(Debug)]
enum Layer {
    /// It comes; the last line about its unpacking, if there is one.
    Comes(Option<Progress>),
    IsHere,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(sender: &'a ProgressSender) -> Self {
        Self { sender, layers: Mutex::default() }
    }

    /// Tells of a download.
    pub(super) fn downloaded(&self, blob: &BlobProgress) {
        if blob.kind != BlobKind::Layer {
            return;
        }
        let mut layers = self.lock();
        self.sender.send_all(downloading(blob));
        if matches!(blob.state, BlobState::Complete | BlobState::Exists) {
            let earlier = layers.insert(blob.digest.short().to_owned(), Layer::IsHere);
            if let Some(Layer::Comes(Some(line))) = earlier {
                self.sender.send(line);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Layer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of the unpacking of the layer `id`, now or when its download is complete.
    pub(super) fn unpacked(&self, id: &str, what: &str) {
        let line = Progress::of(id, what);
        match self.lock().entry(id.to_owned()).or_insert(Layer::Comes(None)) {
            Layer::Comes(last) => *last = Some(line),
            Layer::IsHere => self.sender.send(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use brig_images::Digest;

    use super::*;

    #[test]
    fn no_layer_is_extracted_before_it_is_here() {
        let (sender, mut receiver) = ProgressSender::pair();
        let arrival = Arrival::new(&sender);
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let tell = |state| {
            let blob = BlobProgress { digest: digest.clone(), kind: BlobKind::Layer, state };
            arrival.downloaded(&blob);
        };
        tell(BlobState::Transferring { done: 1, total: 2 });
        arrival.unpacked(digest.short(), "Extracting");
        tell(BlobState::Transferring { done: 2, total: 2 });
        tell(BlobState::Verifying);
        tell(BlobState::Complete);
        arrival.unpacked(digest.short(), "Pull complete");
        let mut lines = Vec::new();
        while let Ok(line) = receiver.try_recv() {
            lines.push(line.unwrap().status.unwrap());
        }
        assert_eq!(
            lines,
            [
                "Downloading",
                "Downloading",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
                "Pull complete"
            ]
        );
    }
}
