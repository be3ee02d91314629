//! A container's entries of the journal as a stream of output, which ends with the container.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::Framing;
use super::journal::{self, Journal, Selection};
use super::reader::Entry;
use crate::container::table::View;
use crate::error::Result;
use crate::stream::ByteStream;

/// The entries as the request wants them.
pub(super) async fn entries(
    id: &str,
    views: watch::Receiver<Arc<View>>,
    framing: Framing,
    follow: bool,
) -> Result<ByteStream> {
    let selection = Selection {
        id: id.to_owned(),
        since_ns: framing.request.since_ns,
        until_ns: framing.request.until_ns,
        tail: framing.request.tail,
        follow,
        after: None,
    };
    if !follow {
        journal::settle().await;
    }
    let began = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    let journal = Journal::read_from(&selection)?;
    let follower = Follower { journal, selection, began, views, framing };
    Ok(Box::pin(stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((piece, follower))
    })))
}

struct Follower {
    journal: Journal,
    /// What the present reader was asked for.
    selection: Selection,
    /// When the first was started, in nanoseconds since 1970.
    began: i128,
    views: watch::Receiver<Arc<View>>,
    framing: Framing,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        while !self.framing.ended {
            match self.read().await {
                Ok(Some(entries)) => {
                    let piece = self.framing.frame(&entries);
                    if !piece.is_empty() {
                        return Some(Ok(piece));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.framing.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn read(&mut self) -> Result<Option<Vec<Entry>>> {
        if self.selection.follow {
            let views = &mut self.views;
            let ended = async {
                let _ = views.wait_for(|view| !view.record.state.phase.is_alive()).await;
            };
            tokio::select! {
                biased;
                read = self.journal.read() => return read,
                () = ended => {}
            }
            self.read_rest().await?;
        }
        self.journal.read().await
    }

    /// The container has ended: what is left of its entries is read without waiting for more.
    async fn read_rest(&mut self) -> Result<()> {
        journal::settle().await;
        let selection = &mut self.selection;
        selection.follow = false;
        if let Some(cursor) = self.journal.cursor() {
            selection.after = Some(cursor.to_owned());
        } else if selection.tail == Some(0) {
            selection.since_ns = selection.since_ns.max(Some(self.began));
        }
        selection.tail = None;
        self.journal = Journal::read_from(selection)?;
        Ok(())
    }
}
