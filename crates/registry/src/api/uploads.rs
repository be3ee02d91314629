//! Uploads: whole, in chunks, or mounted from another repository.

use std::sync::Arc;

use brig_images::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use super::{Answer, CONTENT_DIGEST, empty};
use crate::blocking::blocking;
use crate::body::{self, Receive};
use crate::refusal::Refusal;
use crate::route::{Mount, content_range};
use crate::server::Shared;
use crate::upload::Held;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(super) async fn start(shared: &Arc<Shared>, name: String) -> Answer {
    let (owned, repository) = (Arc::clone(shared), name.clone());
    let id = blocking(move || owned.uploads.start(&repository)).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// Takes a blob over from another repository, or starts an upload where that is not possible.
pub(super) async fn mount(shared: &Arc<Shared>, name: String, mount: Mount) -> Answer {
    let Some(from) = mount.from.clone() else { return start(shared, name).await };
    let (owned, repository, digest) = (Arc::clone(shared), name.clone(), mount.digest.clone());
    let mounted = blocking(move || {
        // It cannot go between the look and the name.
        let _guard = owned.store.lock_shared()?;
        let there = owned.repositories.repository(&from).has_blob(&digest)?
            && owned.store.blobs().contains(&digest);
        if there {
            owned.repositories.repository(&repository).add_blob(&digest)?;
        }
        Ok::<_, Refusal>(there)
    });
    match mounted.await? {
        true => Ok(created(&name, &mount.digest)),
        false => start(shared, name).await,
    }
}

/// A blob in one request.
pub(super) async fn whole(
    shared: &Arc<Shared>,
    name: String,
    digest: Digest,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let (owned, repository) = (Arc::clone(shared), name.clone());
    let id = blocking(move || owned.uploads.start(&repository)).await?;
    let finished = finish(shared, name.clone(), id.clone(), Some(digest), headers, body).await;
    if finished.is_err() {
        // Nobody knows the id: it cannot go on.
        let _ = cancel(shared, name, id).await;
    }
    finished
}

pub(super) async fn status(shared: &Arc<Shared>, name: String, id: String) -> Answer {
    let (owned, repository, wanted) = (Arc::clone(shared), name.clone(), id.clone());
    let size = blocking(move || owned.uploads.size(&repository, &wanted)).await?;
    Ok(progress(StatusCode::NO_CONTENT, &name, &id, size))
}

/// Takes a chunk.
pub(super) async fn append(
    shared: &Arc<Shared>,
    name: String,
    id: String,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let mut held = shared.uploads.hold(&name, &id).await?;
    let size = receive(shared, &name, &id, &mut held, headers, body).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, size))
}

/// Takes the last chunk, if there is one, and makes the upload a blob.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    name: String,
    id: String,
    digest: Option<Digest>,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let Some(digest) = digest else {
        return Err(Refusal::digest_invalid("the last request of an upload must name its digest"));
    };
    let mut held = shared.uploads.hold(&name, &id).await?;
    receive(shared, &name, &id, &mut held, headers, body).await?;
    let upload = held.take().ok_or_else(|| Refusal::upload_unknown(&id))?;
    let repository = shared.repositories.repository(&name);
    let link = move |digest: &Digest| repository.add_blob(digest);
    let committed = body::commit(upload, shared.store.clone(), digest.clone(), link).await;
    drop(held);
    let owned = Arc::clone(shared);
    blocking(move || owned.uploads.forget(&id)).await?;
    committed?;
    Ok(created(&name, &digest))
}

pub(super) async fn cancel(shared: &Arc<Shared>, name: String, id: String) -> Answer {
    let mut held = shared.uploads.hold(&name, &id).await?;
    let upload = held.take();
    let owned = Arc::clone(shared);
    blocking(move || {
        upload.map_or(Ok(()), brig_images::Upload::discard)?;
        owned.uploads.forget(&id)?;
        Ok::<_, Refusal>(())
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT, &[]))
}

/// Takes a request's body into an upload; returns the size that the upload has then.
async fn receive(
    shared: &Shared,
    name: &str,
    id: &str,
    held: &mut Held,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<u64, Refusal> {
    let upload = held.take().ok_or_else(|| Refusal::upload_unknown(id))?;
    let number = |name| {
        let value = headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        value.map(str::to_owned)
    };
    let expected = match number(CONTENT_RANGE) {
        None => number(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        Some(range) => match content_range(&range) {
            Some((first, length)) if first == upload.written() => Some(length),
            wrong => {
                let size = upload.written();
                **held = Some(upload);
                let message = match wrong {
                    Some(_) => format!("the next chunk starts at byte {size}"),
                    None => "the Content-Range is malformed; want FIRST-LAST".to_owned(),
                };
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                return Err(Refusal::new(status, "BLOB_UPLOAD_INVALID", message)
                    .with(LOCATION, &location(name, id))
                    .with(RANGE, &so_far(size)));
            }
        },
    };
    let limits = shared.config.limits;
    let how = Receive { expected, limit: limits.blob_bytes, stall: limits.stall };
    let (upload, received) = body::receive(body, upload, how).await;
    **held = upload;
    received
}

fn location(name: &str, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The bytes that have come, both ends included; an empty upload says the same as one of one byte, as Docker's does.
fn so_far(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, name: &str, id: &str, size: u64) -> http::Response<body::Body> {
    let headers =
        [(LOCATION, location(name, id)), (RANGE, so_far(size)), (UPLOAD_ID, id.to_owned())];
    empty(status, &headers)
}

fn created(name: &str, digest: &Digest) -> http::Response<body::Body> {
    let location = format!("/v2/{name}/blobs/{digest}");
    let headers = [(LOCATION, location), (CONTENT_DIGEST, digest.to_string())];
    empty(StatusCode::CREATED, &headers)
}
