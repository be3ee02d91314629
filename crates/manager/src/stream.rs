//! The streams that engine calls hand out.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;
use crate::models::ContainerStatsResponse;

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
