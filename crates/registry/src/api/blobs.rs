//! Blobs: read whole or in part, and removed.

use std::fs::File;
use std::sync::Arc;

use brig_images::Digest;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{Answer, CONTENT_DIGEST, empty, is_known};
use crate::blocking::blocking;
use crate::body::Body;
use crate::collect::is_referred;
use crate::refusal::Refusal;
use crate::route::range;
use crate::server::Shared;

const OCTETS: &str = "application/octet-stream";

/// A blob to be sent: here, or on its way from the registry behind this one.
pub(crate) enum Source {
    Here(File, u64),
    Coming(tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>, u64),
}

pub(super) async fn get(
    shared: &Arc<Shared>,
    name: String,
    digest: Digest,
    headers: &HeaderMap,
    method: &Method,
) -> Answer {
    let (owned, wanted) = (Arc::clone(shared), digest.clone());
    let repository = name.clone();
    let here = blocking(move || open(&owned, &repository, &wanted)).await?;
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let source = match (here, &shared.proxy) {
        (Some((file, size)), _) => Source::Here(file, size),
        (None, Some(proxy)) => {
            // Only a whole blob can be sent while it comes.
            let only_look = method == Method::HEAD;
            proxy.blob(shared, &name, &digest, asked.is_some(), only_look).await?
        }
        (None, None) => return Err(Refusal::blob_unknown(&digest)),
    };
    if is_known(headers, &digest) {
        return Ok(empty(StatusCode::NOT_MODIFIED, &[(ETAG, format!("\"{digest}\""))]));
    }
    let size = match &source {
        Source::Here(_, size) | Source::Coming(_, size) => *size,
    };
    let part = match asked.map(|asked| range(asked, size)) {
        None | Some(Ok(None)) => None,
        Some(Ok(Some(part))) => Some(part),
        Some(Err(())) => {
            let message = format!("the blob has {size} bytes");
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
            return Err(refusal.with(CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let (first, length) = part.unwrap_or((0, size));
    let body = match source {
        _ if method == Method::HEAD => Body::empty(),
        Source::Here(file, _) => Body::file(file, first, length, shared.config.limits.stall),
        Source::Coming(receiver, size) => Body::channel(receiver, size),
    };
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let text = |text: String| HeaderValue::from_str(&text).ok();
    headers.extend(text(digest.to_string()).map(|value| (CONTENT_DIGEST, value)));
    headers.extend(text(format!("\"{digest}\"")).map(|value| (ETAG, value)));
    if part.is_some() {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        headers.extend(text(range).map(|value| (CONTENT_RANGE, value)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Opens a blob that belongs to a repository. A cache has one owner of everything.
fn open(shared: &Shared, name: &str, digest: &Digest) -> Result<Option<(File, u64)>, Refusal> {
    let repository = shared.repositories.repository(name);
    if !repository.has_blob(digest)? && shared.proxy.is_none() {
        return match repository.exists() {
            true => Ok(None),
            false => Err(Refusal::name_unknown(name)),
        };
    }
    let Some(size) = shared.store.blobs().size(digest) else { return Ok(None) };
    match shared.store.blobs().open(digest) {
        Ok(file) => Ok(Some((file, size))),
        // Collected between the two looks.
        Err(error) if error.kind() == brig_images::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn delete(shared: &Arc<Shared>, name: String, digest: Digest) -> Answer {
    let shared = Arc::clone(shared);
    blocking(move || {
        let repository = shared.repositories.repository(&name);
        if !repository.has_blob(&digest)? {
            return Err(Refusal::blob_unknown(&digest));
        }
        if is_referred(&shared.store, &repository, &digest)? {
            let message = "a manifest refers to this blob; delete that first";
            return Err(Refusal::new(StatusCode::CONFLICT, "DENIED", message));
        }
        repository.remove_blob(&digest)?;
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::ACCEPTED, &[]))
}
