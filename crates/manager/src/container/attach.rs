//! Attaching to a container's first process, also before it has started.
//!
//! The shim gives one connection for both directions, and from Create on. A container that does not run has no shim, so
//! the streams handed out here wait for the connection, and the task of the container makes it between Create and Start:
//! nothing that the process writes is lost. If the container is removed without having started, they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use brig_engine_api::stream::{StdStream, encode_frame};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio_util::io::StreamReader;

use super::requests::{AttachRequest, LogsRequest};
use super::state::Phase;
use super::{Request, Shared, logs};
use crate::error::{Error, Result};
use crate::stream::AttachStream;

/// Attaches to a container.
pub(super) async fn attach(
    shared: &Arc<Shared>,
    container: &str,
    request: AttachRequest,
) -> Result<AttachStream> {
    let handle = shared.table.find(container)?;
    let view = handle.view();
    match view.record.state.phase {
        Phase::Paused => {
            return Err(Error::conflict(format!(
                "container {container} is paused, unpause the container before attach"
            )));
        }
        Phase::Removing | Phase::Dead => {
            return Err(Error::conflict(format!("container {container} is marked for removal")));
        }
        _ => {}
    }
    let tty = view.record.config.tty.unwrap_or(false);
    let mut attached = if request.stream {
        let (sender, receiver) = oneshot::channel();
        let wire = brig_shim_protocol::attach::AttachRequest {
            stdin: request.stdin && view.record.config.open_stdin.unwrap_or(false),
            stdout: request.stdout,
            stderr: request.stderr,
            lossless: true,
            ..Default::default()
        };
        let stdin = wire.stdin;
        handle.ask(|reply| Request::Attach { request: wire, stream: sender, reply }).await?;
        streams(receiver, tty, stdin)
    } else {
        AttachStream {
            tty,
            output: Box::new(tokio::io::empty()),
            input: Box::new(tokio::io::sink()),
        }
    };
    if request.logs {
        let (stdout, stderr) = (request.stdout, request.stderr);
        let past = LogsRequest { stdout, stderr, ..LogsRequest::default() };
        let log = logs::logs(shared, container, past).await?;
        let log = StreamReader::new(log.output.map(|piece| piece.map_err(io::Error::other)));
        attached.output = Box::new(log.chain(attached.output));
    }
    super::publish(&shared.events, &view.record, "attach", &[]);
    Ok(attached)
}

/// Streams over a connection that may not be there yet.
pub(super) fn streams(
    connection: oneshot::Receiver<UnixStream>,
    tty: bool,
    stdin: bool,
) -> AttachStream {
    let (reader, later_reader) = oneshot::channel();
    let (writer, later_writer) = oneshot::channel();
    tokio::spawn(async move {
        let Ok(connection) = connection.await else { return };
        let (read, write) = connection.into_split();
        let _ = reader.send(read);
        if stdin {
            let _ = writer.send(write);
        } else {
            // Not shut down: that would say end of input to a process whose input is someone else's.
            write.forget();
        }
    });
    let input: Box<dyn AsyncWrite + Send + Unpin> = if stdin {
        Box::new(LateWriter(Late::Waiting(later_writer)))
    } else {
        Box::new(tokio::io::sink())
    };
    AttachStream { tty, output: Box::new(LateReader(Late::Waiting(later_reader))), input }
}

/// The streams of a process that could not be started: what is to be told, as its output.
pub(super) fn message(tty: bool, text: &str) -> AttachStream {
    let bytes = if tty {
        Bytes::copy_from_slice(text.as_bytes())
    } else {
        encode_frame(StdStream::Stdout, text.as_bytes())
    };
    AttachStream {
        tty,
        output: Box::new(io::Cursor::new(bytes)),
        input: Box::new(tokio::io::sink()),
    }
}

enum Late<T> {
    Waiting(oneshot::Receiver<T>),
    Ready(T),
    Never,
}

impl<T: Unpin> Late<T> {
    /// The half, `None` when it will never come.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Pin<&mut T>>> {
        if let Self::Waiting(receiver) = self {
            *self = match ready!(Pin::new(receiver).poll(context)) {
                Ok(half) => Self::Ready(half),
                Err(_) => Self::Never,
            };
        }
        match self {
            Self::Ready(half) => Poll::Ready(Some(Pin::new(half))),
            Self::Waiting(_) | Self::Never => Poll::Ready(None),
        }
    }
}

/// Ends an exec's output only once the end of the process is noted: clients ask for the exit code as soon as the output
/// ends.
pub(super) struct EndsWhenNoted<R> {
    output: R,
    noted: Option<oneshot::Receiver<()>>,
}

impl<R> EndsWhenNoted<R> {
    /// `noted` resolves, or is dropped, when the end is noted.
    pub(super) fn new(output: R, noted: oneshot::Receiver<()>) -> Self {
        Self { output, noted: Some(noted) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for EndsWhenNoted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.output).poll_read(context, buffer));
        let ended = read.is_err() || buffer.filled().len() == before;
        if ended && let Some(noted) = &mut self.noted {
            let _either_way = ready!(Pin::new(noted).poll(context));
            self.noted = None;
        }
        Poll::Ready(read)
    }
}

struct LateReader(Late<OwnedReadHalf>);

impl AsyncRead for LateReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.0.poll(context)) {
            Some(half) => half.poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

struct LateWriter(Late<OwnedWriteHalf>);

impl AsyncWrite for LateWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.0.poll(context)) {
            Some(half) => half.poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.0.poll(context)) {
            Some(half) => half.poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.0.poll(context)) {
            Some(half) => half.poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn bytes_written_before_the_start_reach_the_process() {
        let (sender, receiver) = oneshot::channel();
        let mut attached = streams(receiver, false, true);
        let writing = tokio::spawn(async move {
            attached.input.write_all(b"hello").await.expect("write");
            attached.input.shutdown().await.expect("shut down");
            let mut output = String::new();
            attached.output.read_to_string(&mut output).await.expect("read");
            output
        });
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        sender.send(ours).expect("someone waits");
        let mut input = String::new();
        theirs.read_to_string(&mut input).await.expect("read");
        theirs.write_all(b"world").await.expect("write");
        drop(theirs);
        assert_eq!(input, "hello");
        assert_eq!(writing.await.expect("join"), "world");
    }

    #[tokio::test]
    async fn output_ends_after_its_end_was_noted() {
        let (noted, receiver) = oneshot::channel();
        let mut output = EndsWhenNoted::new(&b"all"[..], receiver);
        let mut bytes = [0; 8];
        assert_eq!(output.read(&mut bytes).await.expect("bytes"), 3);
        let mut last = Box::pin(output.read(&mut bytes));
        assert!(futures_util::poll!(&mut last).is_pending());
        drop(noted);
        assert_eq!(last.await.expect("the end"), 0);
        assert_eq!(output.read(&mut bytes).await.expect("the end again"), 0);
    }

    #[tokio::test]
    async fn a_container_that_never_starts_ends_its_streams() {
        let (sender, receiver) = oneshot::channel::<UnixStream>();
        let mut attached = streams(receiver, false, true);
        drop(sender);
        let mut output = Vec::new();
        assert_eq!(attached.output.read_to_end(&mut output).await.expect("end"), 0);
        assert!(attached.input.write_all(b"x").await.is_err());
    }
}
