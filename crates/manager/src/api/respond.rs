//! Answers: JSON, and streams of bytes, values and progress.

use std::future::Future;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use brig_engine_api::progress::{ErrorDetail, ProgressMessage};
use brig_engine_api::stream::encode_json_line;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use serde::Serialize;

use super::Ending;
use super::failure::Failure;
use crate::{ByteStream, Error, ErrorKind, Progress, ProgressStream, Result};

/// What a handler returns.
pub(super) type Answer = std::result::Result<Response, Failure>;

/// Runs a call that changes something to its end, even when the client goes away and the handler is dropped.
pub(super) async fn complete<T, F>(call: F) -> std::result::Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    match tokio::spawn(call).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            let failed = Error::new(ErrorKind::Io, "the call was cut off").with_source(error);
            Err(failed.into())
        }
    }
}

/// `value` as the whole answer.
pub(super) fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    match encode_json_line(value) {
        Ok(line) => with_type(status, "application/json", Body::from(line)),
        Err(error) => {
            tracing::error!(%error, "encode an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `value` with status 200.
pub(super) fn json(value: &impl Serialize) -> Answer {
    Ok(json_response(StatusCode::OK, value))
}

/// No content but the status.
pub(super) fn empty(status: StatusCode) -> Answer {
    Ok(status.into_response())
}

/// A body of the given type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Bytes of the engine as they come. An error cuts the connection, so that the client sees a truncated answer.
pub(super) fn bytes(content_type: &'static str, bytes: ByteStream) -> Response {
    with_type(StatusCode::OK, content_type, Body::from_stream(bytes))
}

/// As [`bytes`], ending when the server closes.
pub(super) fn endless_bytes(
    ending: &Ending,
    content_type: &'static str,
    items: ByteStream,
) -> Response {
    let closing = ending.closing.clone().cancelled_owned();
    bytes(content_type, items.take_until(Box::pin(closing)).boxed())
}

/// Values, one a line, until the server closes. An error becomes the last line.
pub(super) fn endless_lines<T, S>(ending: &Ending, items: S) -> Response
where
    T: Serialize,
    S: Stream<Item = Result<T>> + Send + 'static,
{
    let lines = items.map(|item| match item {
        Ok(value) => line(&value),
        Err(error) => line(&failed(&error)),
    });
    let closing = ending.closing.clone().cancelled_owned();
    with_type(
        StatusCode::OK,
        "application/json",
        Body::from_stream(lines.take_until(Box::pin(closing))),
    )
}

/// Progress of a pull, push or load. An error that comes first is the request's status; a later one is the last line.
pub(super) async fn progress(mut items: ProgressStream) -> Answer {
    let first = match items.next().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let lines = stream::iter(first).chain(items).map(|item| match item {
        Ok(progress) => line(&message(progress)),
        Err(error) => {
            tracing::warn!(error = error.report(), "a transfer failed");
            line(&failed(&error))
        }
    });
    Ok(with_type(StatusCode::OK, "application/json", Body::from_stream(lines)))
}

fn line(value: &impl Serialize) -> std::result::Result<Bytes, serde_json::Error> {
    encode_json_line(value)
}

fn failed(error: &Error) -> ProgressMessage {
    let message = error.report();
    let error_detail = Some(ErrorDetail { code: None, message: message.clone() });
    ProgressMessage { error: Some(message), error_detail, ..ProgressMessage::default() }
}

fn message(progress: Progress) -> ProgressMessage {
    let Progress { id, status, current_bytes, total_bytes, stream, aux } = progress;
    let status = status.unwrap_or_default();
    let message = match (id, current_bytes) {
        (Some(id), Some(current)) => ProgressMessage::bytes(id, status, current, total_bytes),
        (Some(id), None) => ProgressMessage::about(id, status),
        (None, _) if status.is_empty() => ProgressMessage::default(),
        (None, _) => ProgressMessage::status(status),
    };
    ProgressMessage { stream, aux, ..message }
}

/// Whether the client asks to leave HTTP.
pub(super) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(http::header::UPGRADE)
}
