//! The streams that engine calls hand out.

use std::fmt;
use std::io::{BufWriter, Read, Write};
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::task::TaskTracker;

use crate::blocking;
use crate::error::{Error, Result};
use crate::models::ContainerStatsResponse;

/// Progress lines that a reader may be behind.
const PROGRESS_LINES: usize = 1024;
/// Pieces that a reader may be behind.
const WRITTEN_PIECES: usize = 8;
/// The size of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes in pieces of at most 64 KiB; ends after the first error.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Progress messages of pull, push, load and import; an error is the last item. An error that comes first belongs to the
/// request as a whole.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress>> + Send>>;

/// One statistics sample per second, or just one.
pub type StatsStream = Pin<Box<dyn Stream<Item = Result<ContainerStatsResponse>> + Send>>;

/// A container's log, framed like an attach stream: stdcopy frames, or raw bytes for a terminal.
pub struct LogStream {
    /// The container has a terminal, so the bytes are raw.
    pub tty: bool,
    /// The framed bytes.
    pub output: ByteStream,
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").field("tty", &self.tty).finish_non_exhaustive()
    }
}

/// Both directions of an attached process.
pub struct AttachStream {
    /// The process has a terminal: `output` is raw bytes. Otherwise it is stdcopy frames.
    pub tty: bool,
    /// Output of the process, ending when it ends.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard input; shutting it down is end-of-file. A sink when input was not asked for.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
}

impl fmt::Debug for AttachStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachStream").field("tty", &self.tty).finish_non_exhaustive()
    }
}

/// One line of progress, in docker's vocabulary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The layer or other part that the line is about (`4f4fb700ef54`); none for the whole transfer.
    pub id: Option<String>,
    /// `Downloading`, `Pull complete`, `Digest: sha256:…`.
    pub status: Option<String>,
    /// Bytes done.
    pub current_bytes: Option<u64>,
    /// Bytes in all, when known.
    pub total_bytes: Option<u64>,
    /// Free text of `load` (`Loaded image: …\n`).
    pub stream: Option<String>,
    /// Machine-readable extra (`{"Tag":…,"Digest":…,"Size":…}` at the end of a push).
    pub aux: Option<serde_json::Value>,
}

impl Progress {
    pub(crate) fn status(status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..Self::default() }
    }

    pub(crate) fn of(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::status(status) }
    }
}

/// Progress lines on their way to a reader. Lines that a slow reader has no room for are dropped.
#[derive(Debug, Clone)]
pub(crate) struct ProgressSender(mpsc::Sender<Result<Progress>>);

impl ProgressSender {
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, mpsc::Receiver<Result<Progress>>) {
        let (sender, receiver) = mpsc::channel(PROGRESS_LINES);
        (Self(sender), receiver)
    }

    pub(crate) fn send(&self, progress: Progress) {
        let _ = self.0.try_send(Ok(progress));
    }

    pub(crate) fn send_all(&self, lines: Vec<Progress>) {
        lines.into_iter().for_each(|line| self.send(line));
    }
}

/// Runs `work` as a task and streams what it reports; its error is the last item. The task ends early when the reader
/// goes away.
pub(crate) fn progress<W, F>(tasks: &TaskTracker, work: W) -> ProgressStream
where
    W: FnOnce(ProgressSender) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(PROGRESS_LINES);
    let work = work(ProgressSender(sender.clone()));
    tasks.spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            result = work => {
                if let Err(error) = result {
                    let _ = sender.send(Err(error)).await;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Streams what `work` writes on a thread where it may block. When the reader goes away its writes fail.
pub(crate) fn written<W>(work: W) -> ByteStream
where
    W: FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WRITTEN_PIECES);
    let finish = sender.clone();
    tokio::spawn(async move {
        let result = blocking::run(move || {
            let mut writer = BufWriter::with_capacity(PIECE_BYTES, PieceWriter(sender));
            work(&mut writer)?;
            writer.flush().map_err(|source| Error::io("send the last bytes", source))
        });
        if let Err(error) = result.await {
            let _ = finish.send(Err(error)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct PieceWriter(mpsc::Sender<Result<Bytes>>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(piece))) {
            Ok(()) => Ok(piece.len()),
            Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A blocking reader over a stream of bytes.
pub(crate) fn reader(body: ByteStream) -> impl Read + Send {
    let pieces = body.map(|piece| piece.map_err(std::io::Error::other));
    SyncIoBridge::new(Box::pin(StreamReader::new(pieces)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_arrives_and_an_error_comes_last() {
        let stream = written(|writer| {
            writer.write_all(&[7; 100_000]).map_err(|source| Error::io("write", source))?;
            writer.flush().map_err(|source| Error::io("write", source))?;
            Err(Error::invalid("the end"))
        });
        let pieces: Vec<Result<Bytes>> = stream.collect().await;
        let bytes: usize = pieces.iter().flatten().map(Bytes::len).sum();
        assert_eq!(bytes, 100_000);
        assert!(pieces.last().is_some_and(Result::is_err));
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_work() {
        let tasks = TaskTracker::new();
        let stream = progress(&tasks, |_sender| std::future::pending());
        drop(stream);
        tasks.close();
        tasks.wait().await;
    }
}
