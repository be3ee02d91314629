//! Extractors: the parts of a request, checked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::RequestPartsExt as _;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use brig_engine_api::ApiVersion;
use brig_engine_api::query::Query;
use brig_engine_api::registry_auth::{REGISTRY_AUTH_HEADER, RegistryAuth};
use bytes::Bytes;
use futures_util::stream::poll_fn;
use futures_util::{Stream, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::respond::Answer;
use crate::{ByteStream, Error, ErrorKind};

/// Largest JSON body, in bytes. Create requests with thousands of mounts stay far below it.
pub(super) const MAX_JSON: usize = 16 * 1024 * 1024;

/// How much of a body that nobody wants is read, in bytes, and for how long. A client that is cut off while it sends may
/// never look for the answer, and archives are large: Go's servers stop at 256 KiB, and their clients lose the reason.
const MAX_DISCARDED: usize = 1024 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The query parameters of an endpoint.
pub(super) struct Params<Q>(pub(super) Q);

impl<S: Sync, Q: Query> FromRequestParts<S> for Params<Q> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(Q::parse(parts.uri.query().unwrap_or_default())?))
    }
}

/// The name or id in a path.
pub(super) struct Name(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let decoded = parts.extract::<Path<String>>().await;
        let Path(name) =
            decoded.map_err(|_| Failure::invalid("the path holds a name that is not text"))?;
        if name.contains('\0') {
            return Err(Failure::invalid("the path holds a name with a NUL byte"));
        }
        Ok(Self(name))
    }
}

/// The API version that the client speaks.
#[derive(Clone, Copy)]
pub(super) struct Version(pub(super) ApiVersion);

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let version = parts.extensions.get::<ApiVersion>().copied();
        Ok(Self(version.unwrap_or(brig_engine_api::API_VERSION)))
    }
}

/// Credentials in `X-Registry-Auth`.
pub(super) struct Auth(pub(super) Option<crate::RegistryAuth>);

impl<S: Sync> FromRequestParts<S> for Auth {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(header) = parts.headers.get(REGISTRY_AUTH_HEADER) else { return Ok(Self(None)) };
        let auth = RegistryAuth::decode(header.to_str().unwrap_or("?"))
            .map_err(|error| Failure::invalid(error.to_string()))?;
        Ok(Self(auth.map(|auth| crate::RegistryAuth {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identitytoken,
            registry_token: auth.registrytoken,
            server_address: auth.serveraddress,
        })))
    }
}

/// A JSON body that must be there.
pub(super) struct Json<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        match parse_json(&parts.headers, body).await? {
            Some(value) => Ok(Self(value)),
            None => Err(Failure::invalid("invalid JSON: the request has no body")),
        }
    }
}

/// Reads a JSON body; `None` when it is empty.
pub(super) async fn parse_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<T>, Failure> {
    let bytes = collect(body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // Web pages cannot send this type without asking first; nor do clients send another.
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Failure::invalid(format!(
            "unsupported Content-Type header ({essence}): must be 'application/json'"
        )));
    }
    let value = serde_json::from_slice(&bytes);
    value.map_err(|error| Failure::invalid(format!("invalid JSON: {error}")))
}

async fn collect(body: Body) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the request's body is larger than {MAX_JSON} bytes");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(error) => Err(Failure::invalid(format!("read the request's body: {error}"))),
    }
}

/// Answers a request by what arrives as its body. When that fails the rest is read first, within bounds: a client that is
/// still sending would otherwise meet a closed connection instead of the answer.
pub(super) async fn with_upload<F: Future<Output = Answer>>(
    body: Body,
    answer: impl FnOnce(ByteStream) -> F,
) -> Answer {
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    let failed = |error: axum::Error| {
        Error::new(ErrorKind::Io, "read the request's body").with_source(error)
    };
    let arriving = pieces(&body).map(move |piece| piece.map_err(failed));
    let answered = answer(Box::pin(arriving)).await;
    if answered.is_err() {
        let _gave_up = tokio::time::timeout(DISCARD_TIMEOUT, discard(pieces(&body))).await;
    }
    answered
}

async fn discard(mut pieces: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let mut bytes = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        bytes += piece.len();
        if bytes > MAX_DISCARDED {
            return;
        }
    }
}

fn pieces(
    body: &Arc<Mutex<BodyDataStream>>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Unpin + use<> {
    let body = Arc::clone(body);
    poll_fn(move |context| {
        body.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    })
}
