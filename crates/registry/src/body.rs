//! Bodies: answers that stream a file, and requests read within limits.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use brig_images::Upload;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::blocking::blocking;
use crate::refusal::Refusal;

/// Bytes read from a file at once.
pub(crate) const CHUNK: usize = 512 << 10;
/// Bytes of a request gathered before they are written.
const BATCH: usize = 512 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Stream { receiver: mpsc::Receiver<io::Result<Bytes>>, left: u64 },
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// `length` bytes of `file` from `first`. A client that takes nothing for `stall` is given up.
    pub(crate) fn file(file: File, first: u64, length: u64, stall: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(async move {
            let file = Arc::new(file);
            let (mut at, end) = (first, first + length);
            while at < end {
                let chunk = read_at(Arc::clone(&file), at, end - at).await;
                let failed = chunk.is_err();
                at += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                if !send(&sender, chunk, stall).await || failed {
                    return;
                }
            }
        });
        Self::Stream { receiver, left: length }
    }

    /// What a channel gives, `length` bytes in all.
    pub(crate) fn channel(receiver: mpsc::Receiver<io::Result<Bytes>>, length: u64) -> Self {
        Self::Stream { receiver, left: length }
    }
}

/// Hands a chunk to the client's connection; false if it is gone or takes too long.
pub(crate) async fn send(
    sender: &mpsc::Sender<io::Result<Bytes>>,
    chunk: io::Result<Bytes>,
    stall: Duration,
) -> bool {
    matches!(tokio::time::timeout(stall, sender.send(chunk)).await, Ok(Ok(())))
}

/// Reads a chunk of at most `most` bytes. The end of the file is an error: the caller knows that more is due.
pub(crate) async fn read_at(file: Arc<File>, at: u64, most: u64) -> io::Result<Bytes> {
    let length = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
    let read = tokio::task::spawn_blocking(move || {
        let mut chunk = vec![0; length];
        let count = file.read_at(&mut chunk, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(count);
        Ok(Bytes::from(chunk))
    });
    read.await.map_err(io::Error::other)?
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream { receiver, left } => match receiver.poll_recv(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) => {
                    *left = left.saturating_sub(bytes.len() as u64);
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                // Cut short: the client must see a broken connection, not an end.
                Poll::Ready(None) if *left > 0 => {
                    Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
                }
                Poll::Ready(None) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Stream { left, .. } => *left,
        })
    }
}

/// The next piece of a request's body; `None` at its end.
async fn next(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(stall, body.frame()).await.map_err(|_| {
            let message = "the request's body does not come";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "UNKNOWN", message)
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| {
            Refusal::upload_invalid(format!("the request's body broke off: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn whole(
    mut body: Incoming,
    limit: usize,
    stall: Duration,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body, stall).await? {
        if bytes.len() + data.len() > limit {
            return Err(Refusal::too_large(format!("more than {limit} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// How a body is received into an upload.
#[derive(Clone, Copy)]
pub(crate) struct Receive {
    /// How many bytes it must have, if that was said.
    pub(crate) expected: Option<u64>,
    /// Largest blob, in bytes.
    pub(crate) limit: u64,
    pub(crate) stall: Duration,
}

/// Appends a body to an upload, the next batch gathered while one is hashed and written. The upload is given back also
/// when the body breaks off: what came counts.
pub(crate) async fn receive(
    mut body: Incoming,
    upload: Upload,
    how: Receive,
) -> (Option<Upload>, Result<u64, Refusal>) {
    let before = upload.written();
    let mut writer = Writer::Idle(Box::new(upload));
    let mut came = 0_u64;
    let outcome = loop {
        let (batch, ended) = match gather(&mut body, how.stall).await {
            Ok(gathered) => gathered,
            Err(refusal) => break Err(refusal),
        };
        came += batch.iter().map(|data| data.len() as u64).sum::<u64>();
        if how.expected.is_some_and(|expected| came > expected) {
            break Err(Refusal::upload_invalid("the body is longer than its range says"));
        }
        if before + came > how.limit {
            break Err(Refusal::too_large(format!("a blob may have {} bytes", how.limit)));
        }
        writer = match writer.append(batch).await {
            (writer, Ok(())) => writer,
            (writer, Err(refusal)) => return (writer.finish().await.0, Err(refusal)),
        };
        if ended {
            break match how.expected {
                Some(expected) if expected != came => {
                    Err(Refusal::upload_invalid("the body is shorter than its range says"))
                }
                _ => Ok(()),
            };
        }
    };
    let (upload, written) = writer.finish().await;
    (upload, outcome.and(written).map(|()| before + came))
}

/// Some pieces of a body, and whether it has ended.
async fn gather(body: &mut Incoming, stall: Duration) -> Result<(Vec<Bytes>, bool), Refusal> {
    let (mut batch, mut size) = (Vec::new(), 0);
    while size < BATCH {
        let Some(data) = next(body, stall).await? else { return Ok((batch, true)) };
        size += data.len();
        batch.push(data);
    }
    Ok((batch, false))
}

type Writing = JoinHandle<(Upload, Result<(), Refusal>)>;

/// An upload, maybe being written to.
enum Writer {
    Idle(Box<Upload>),
    Busy(Writing),
    Lost,
}

impl Writer {
    /// Starts writing a batch once the one before is written.
    async fn append(self, batch: Vec<Bytes>) -> (Self, Result<(), Refusal>) {
        let (Some(mut upload), written) = self.finish().await else {
            return (Self::Lost, Err(lost()));
        };
        if written.is_err() || batch.is_empty() {
            return (Self::Idle(Box::new(upload)), written);
        }
        let writing = tokio::task::spawn_blocking(move || {
            let append = |upload: &mut Upload| {
                batch.iter().try_for_each(|data| upload.append(data)).map_err(Refusal::from)
            };
            let written = append(&mut upload);
            (upload, written)
        });
        (Self::Busy(writing), Ok(()))
    }

    async fn finish(self) -> (Option<Upload>, Result<(), Refusal>) {
        match self {
            Self::Idle(upload) => (Some(*upload), Ok(())),
            Self::Lost => (None, Err(lost())),
            Self::Busy(writing) => match writing.await {
                Ok((upload, written)) => (Some(upload), written),
                Err(error) => (None, Err(Refusal::internal(&error))),
            },
        }
    }
}

fn lost() -> Refusal {
    Refusal::upload_invalid("the upload is lost; start it again")
}

/// Ends an upload: verifies it and makes it a blob.
pub(crate) async fn commit(
    upload: Upload,
    store: brig_images::Store,
    digest: brig_images::Digest,
    link: impl FnOnce(&brig_images::Digest) -> crate::Result<()> + Send + 'static,
) -> Result<u64, Refusal> {
    blocking(move || {
        let lease = store.lease()?;
        let size = upload.commit(&lease, &digest).map_err(|error| match error.kind() {
            brig_images::ErrorKind::Integrity => Refusal::digest_invalid(error.to_string()),
            _ => error.into(),
        })?;
        // Under the lease, so that the blob cannot go before it belongs to someone; and under the lock, since a collection
        // that saw the name of an older push as unused must not take away the new one's.
        let _guard = store.lock_shared()?;
        link(&digest)?;
        Ok::<_, Refusal>(size)
    })
    .await
}
