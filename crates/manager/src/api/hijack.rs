//! Connections that become a process's streams.
//!
//! After `101 UPGRADED` the connection carries the process's output, framed unless it has a terminal, and its raw
//! input. Either side may close its half: the client's is end of file for the process, the process's end closes the
//! connection. A client that does not ask for an upgrade gets the output alone, as an ordinary answer.

use axum::body::Body;
use axum::response::Response;
use brig_engine_api::ApiVersion;
use brig_engine_api::stream::{MULTIPLEXED_STREAM, RAW_STREAM};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::Ending;
use super::detach::DetachKeys;
use super::respond::{wants_upgrade, with_type};
use crate::AttachStream;

/// The first version whose content type says whether the stream is framed.
const TELLING_CONTENT_TYPE: ApiVersion = ApiVersion::new(1, 42);

/// Bytes read at once from the client.
const INPUT_CHUNK: usize = 16 * 1024;

/// The content type for a process's output.
pub(super) fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < TELLING_CONTENT_TYPE { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

/// Hands the connection over to `stream`.
pub(super) fn hijack(
    ending: &Ending,
    parts: Parts,
    stream: AttachStream,
    detach: DetachKeys,
    version: ApiVersion,
) -> Response {
    let content_type = content_type(stream.tty, version);
    let request = Request::from_parts(parts, ());
    if !wants_upgrade(&request) {
        let output = ReaderStream::new(stream.output);
        return with_type(StatusCode::OK, content_type, Body::from_stream(output));
    }
    let upgrade = hyper::upgrade::on(request);
    let closing = ending.closing.clone();
    ending.hijacked.spawn(async move {
        match upgrade.await {
            Ok(connection) => tokio::select! {
                () = closing.cancelled() => {}
                () = pump(TokioIo::new(connection), stream, detach) => {}
            },
            Err(error) => {
                tracing::debug!(%error, "a client left before its connection was handed over");
            }
        }
    });
    let mut response = with_type(StatusCode::SWITCHING_PROTOCOLS, content_type, Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// Moves bytes both ways until the process's output ends, the client detaches, or the client is gone.
async fn pump<C>(connection: C, stream: AttachStream, detach: DetachKeys)
where
    C: AsyncRead + AsyncWrite,
{
    let AttachStream { tty, mut output, input } = stream;
    let (from_client, mut to_client) = tokio::io::split(connection);
    let detach = tty.then_some(detach);
    tokio::select! {
        copied = tokio::io::copy(&mut output, &mut to_client) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "an attached client is gone");
            }
        }
        () = feed(from_client, input, detach) => {}
    }
    // The client may be gone already.
    let _ = to_client.shutdown().await;
}

/// Moves the client's bytes to the process. Returns only when the client detaches: the output may go on long after
/// the end of the input.
async fn feed<R, W>(mut client: R, mut input: W, mut detach: Option<DetachKeys>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut typed = vec![0; INPUT_CHUNK];
    let mut passed = Vec::with_capacity(INPUT_CHUNK);
    // A process may close its input and go on; what is typed then goes nowhere.
    let mut open = true;
    loop {
        let length = match client.read(&mut typed).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        passed.clear();
        let detached = match &mut detach {
            Some(keys) => keys.scan(&typed[..length], &mut passed),
            None => {
                passed.extend_from_slice(&typed[..length]);
                false
            }
        };
        if open {
            open = input.write_all(&passed).await.is_ok() && input.flush().await.is_ok();
        }
        if detached {
            return;
        }
    }
    if let Some(keys) = &mut detach
        && open
    {
        // The end of the input follows anyway.
        let _ = input.write_all(keys.rest()).await;
    }
    // Dropping the input without a shutdown would leave the process waiting.
    let _ = input.shutdown().await;
    std::future::pending::<()>().await;
}
