//! Building requests and judging responses.

use std::convert::Infallible;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use http::header::{CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{ByteStream, Client, Error, JsonStream, Result};
use crate::error::ErrorResponse;
use crate::query::Query;

/// Largest answer read whole; streams have no limit.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Largest error message read.
const MAX_ERROR: usize = 1024 * 1024;

/// Bytes read at once from the source of an upload.
const UPLOAD_CHUNK: usize = 64 * 1024;

/// What may stand in one segment of a path: RFC 3986's pchar that matter in names of images and containers.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body to send, of unknown length.
pub struct Upload(RequestBody);

impl std::fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Upload")
    }
}

impl Upload {
    /// Sends what `source` yields. An error of it aborts the call.
    pub fn from_stream(source: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(StreamBody::new(source.map_ok(Frame::data)).boxed_unsync())
    }

    /// Sends what is read from `source` until its end.
    pub fn from_reader(source: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::from_stream(futures_util::stream::try_unfold(source, async |mut source| {
            let mut chunk = BytesMut::with_capacity(UPLOAD_CHUNK);
            let length = source.read_buf(&mut chunk).await?;
            Ok((length > 0).then(|| (chunk.freeze(), source)))
        }))
    }

    /// Sends `bytes`.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(full(bytes.into()))
    }
}

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// A request in the making.
pub(super) struct Call<'a> {
    client: &'a Client,
    method: Method,
    target: String,
    headers: Vec<(HeaderName, String)>,
    body: Result<RequestBody>,
}

/// Escapes a name for use in a path. Slashes stay: image names have them and daemons route on them.
pub(super) fn segment(name: &str) -> String {
    // Clients and servers resolve dot segments; no object has such a name.
    match name {
        "." | ".." => name.replace('.', "%2E"),
        _ => utf8_percent_encode(name, SEGMENT).to_string(),
    }
}

impl Client {
    pub(super) fn get(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::GET, path.as_ref())
    }

    pub(super) fn post(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::POST, path.as_ref())
    }

    pub(super) fn delete(&self, path: impl AsRef<str>) -> Call<'_> {
        self.call(Method::DELETE, path.as_ref())
    }

    pub(super) fn call(&self, method: Method, path: &str) -> Call<'_> {
        // The daemon is asked for its version without assuming one.
        let target = match path {
            "/_ping" => path.to_owned(),
            _ => format!("/v{}{path}", self.version),
        };
        let body = Ok(Empty::new().map_err(never).boxed_unsync());
        Call { client: self, method, target, headers: Vec::new(), body }
    }
}

impl Call<'_> {
    pub(super) fn query(mut self, query: &impl Query) -> Self {
        let query = query.encode();
        if !query.is_empty() {
            self.target.push('?');
            self.target.push_str(&query);
        }
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body)
            .map(|bytes| full(bytes.into()))
            .map_err(|source| Error::encode(self.what(), source));
        self.header(CONTENT_TYPE, "application/json")
    }

    pub(super) fn upload(mut self, body: Upload, content_type: &str) -> Self {
        self.body = Ok(body.0);
        self.header(CONTENT_TYPE, content_type)
    }

    /// What the call is, for messages.
    pub(super) fn what(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    /// Sends the request and returns the response whatever its status.
    pub(super) async fn exchange(self) -> Result<Response<Incoming>> {
        let what = self.what();
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(HOST, self.client.endpoint.host())
            .header(USER_AGENT, concat!("brig/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(self.body?).map_err(|source| Error::request(what, source))?;
        let mut sender = self.client.endpoint.open().await?;
        sender.send_request(request).await.map_err(Error::exchange)
    }

    /// Sends the request and returns a successful response.
    pub(super) async fn response(self) -> Result<Response<Incoming>> {
        judge(self.exchange().await?).await
    }

    /// Sends the request and ignores what a successful response holds.
    pub(super) async fn done(self) -> Result<()> {
        let response = self.response().await?;
        // Read to the end, so that the daemon does not see the call aborted.
        let _ = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok(())
    }

    /// Sends the request and reads the answer.
    pub(super) async fn answer<T: DeserializeOwned>(self) -> Result<T> {
        let what = self.what();
        let response = self.response().await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let bytes = body.map_err(|source| Error::answer(what.clone(), source))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|source| Error::answer(what, source))
    }

    /// Sends the request and returns the answer as it arrives.
    pub(super) async fn bytes(self) -> Result<ByteStream> {
        Ok(ByteStream::new(self.response().await?.into_body()))
    }

    /// Sends the request and returns the answer's lines as they arrive.
    pub(super) async fn lines<T: DeserializeOwned>(self) -> Result<JsonStream<T>> {
        Ok(JsonStream::new(self.bytes().await?))
    }
}

/// Turns a response that refuses into an error with the daemon's message.
async fn judge(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = match serde_json::from_slice::<ErrorResponse>(&bytes) {
        Ok(response) => response.message,
        Err(_) if bytes.is_empty() => format!("the daemon answered {status}"),
        Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    Err(Error::refused(status, message))
}

/// The text of a header, where it has one.
pub(super) fn header_text<'a>(response: &'a Response<Incoming>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(HeaderValue::to_str).and_then(std::result::Result::ok)
}
