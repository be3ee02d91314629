//! Manifests and indexes: taken only when complete, served as they came.

use std::sync::Arc;

use brig_images::digest::Hasher;
use brig_images::manifest::Manifest;
use brig_images::{Descriptor, Digest, Lease};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::{Answer, CONTENT_DIGEST, empty, is_known};
use crate::blocking::blocking;
use crate::body::{self, Body};
use crate::collect::{is_referred, read_manifest};
use crate::refusal::Refusal;
use crate::repository::Repository;
use crate::route::Version;
use crate::server::Shared;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// A manifest as it is served.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

pub(super) async fn get(
    shared: &Arc<Shared>,
    name: String,
    version: Version,
    headers: &HeaderMap,
    method: &Method,
) -> Answer {
    let found = match &shared.proxy {
        Some(proxy) => proxy.manifest(shared, &name, &version).await?,
        None => {
            let shared = Arc::clone(shared);
            blocking(move || {
                find(&shared, &name, &version)?.ok_or_else(|| {
                    match shared.repositories.repository(&name).exists() {
                        true => Refusal::manifest_unknown(&version),
                        false => Refusal::name_unknown(&name),
                    }
                })
            })
            .await?
        }
    };
    let etag = format!("\"{}\"", found.digest);
    if is_known(headers, &found.digest) {
        return Ok(empty(StatusCode::NOT_MODIFIED, &[(ETAG, etag)]));
    }
    let length = found.bytes.len();
    let body = if method == Method::HEAD { Body::empty() } else { Body::of(found.bytes) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    for (name, text) in [
        (CONTENT_TYPE, found.media_type.as_str()),
        (CONTENT_DIGEST, &found.digest.to_string()),
        (ETAG, &etag),
    ] {
        headers.extend(HeaderValue::from_str(text).ok().map(|value| (name, value)));
    }
    Ok(response)
}

/// Finds a manifest that is here.
pub(crate) fn find(
    shared: &Shared,
    name: &str,
    version: &Version,
) -> Result<Option<Found>, Refusal> {
    let repository = shared.repositories.repository(name);
    let digest = match version {
        Version::Digest(digest) => Some(digest.clone()),
        Version::Tag(tag) => repository.tag(tag)?,
    };
    let Some(digest) = digest else { return Ok(None) };
    let Some(media_type) = repository.manifest(&digest)? else { return Ok(None) };
    let limit = shared.config.limits.manifest_bytes;
    let bytes = shared.store.blobs().read(&digest, limit)?;
    Ok(Some(Found { digest, media_type, bytes }))
}

pub(super) async fn put(
    shared: &Arc<Shared>,
    name: String,
    version: Version,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let limits = shared.config.limits;
    let bytes = body::whole(body, limits.manifest_bytes, limits.stall).await?;
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.map(str::to_owned);
    let owned = Arc::clone(shared);
    let repository = name.clone();
    let (digest, subject) = blocking(move || {
        let manifest = Manifest::parse(&bytes, media_type.as_deref())
            .map_err(|error| Refusal::manifest_invalid(crate::refusal::chain(&error)))?;
        let digest = digest_of(&bytes, &version)?;
        let lease = owned.store.lease()?;
        let to = owned.repositories.repository(&repository);
        // No collection between the look at what it refers to and the manifest's own name, which speaks for them.
        let _guard = owned.store.lock_shared()?;
        for child in manifest.children() {
            check_child(&owned, &to, child)?;
        }
        store(&lease, &to, &digest, &manifest, &bytes)?;
        if let Version::Tag(tag) = &version {
            to.set_tag(tag, &digest)?;
        }
        let subject = manifest.subject().map(|subject| subject.digest.to_string());
        Ok::<_, Refusal>((digest, subject))
    })
    .await?;
    let location = format!("/v2/{name}/manifests/{digest}");
    let mut headers = vec![(LOCATION, location), (CONTENT_DIGEST, digest.to_string())];
    headers.extend(subject.map(|subject| (SUBJECT, subject)));
    Ok(empty(StatusCode::CREATED, &headers))
}

/// The digest that the manifest gets: the one it is put under, which it must hash to, else SHA-256.
fn digest_of(bytes: &[u8], version: &Version) -> Result<Digest, Refusal> {
    let Version::Digest(wanted) = version else { return Ok(Digest::of(bytes)) };
    let mut hasher = Hasher::new(wanted.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    match found == *wanted {
        true => Ok(found),
        false => Err(Refusal::digest_invalid(format!("the manifest hashes to {found}"))),
    }
}

/// Layers that their owners keep elsewhere are not pushed.
fn is_kept_here(child: &Descriptor) -> bool {
    child.urls.as_ref().is_none_or(Vec::is_empty)
}

/// What a manifest refers to must be in its repository, with the size that it states.
fn check_child(shared: &Shared, to: &Repository, child: &Descriptor) -> Result<(), Refusal> {
    if !is_kept_here(child) {
        return Ok(());
    }
    let is_manifest = child.is_manifest() || child.is_index();
    let belongs = match is_manifest {
        true => to.manifest(&child.digest)?.is_some(),
        false => to.has_blob(&child.digest)?,
    };
    let size = shared.store.blobs().size(&child.digest).filter(|_| belongs);
    match size {
        Some(size) if size == child.size => Ok(()),
        Some(size) => Err(Refusal::manifest_invalid(format!(
            "it says that {} has {} bytes, but that has {size}",
            child.digest, child.size
        ))),
        None => {
            let what = if is_manifest { "manifest" } else { "blob" };
            let message = format!("it refers to {what} {}, which was not pushed", child.digest);
            Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message))
        }
    }
}

/// Stores a manifest and what it says of others.
pub(crate) fn store(
    lease: &Lease,
    to: &Repository,
    digest: &Digest,
    manifest: &Manifest,
    bytes: &[u8],
) -> Result<(), Refusal> {
    lease.put_as(digest, bytes)?;
    to.add_manifest(digest, manifest.media_type())?;
    if let Some(subject) = manifest.subject() {
        let annotations = manifest.annotations();
        let mut referrer =
            Descriptor::new(manifest.media_type(), digest.clone(), bytes.len() as u64);
        referrer.artifact_type = manifest.artifact_type().map(str::to_owned);
        referrer.annotations = (!annotations.is_empty()).then(|| annotations.clone());
        to.add_referrer(&subject.digest, &referrer)?;
    }
    Ok(())
}

/// Removes a tag, or a manifest with its tags.
pub(super) async fn delete(shared: &Arc<Shared>, name: String, version: Version) -> Answer {
    let shared = Arc::clone(shared);
    blocking(move || {
        let repository = shared.repositories.repository(&name);
        let digest = match &version {
            Version::Tag(tag) => {
                return match repository.remove_tag(tag)? {
                    true => Ok(()),
                    false => Err(Refusal::manifest_unknown(&version)),
                };
            }
            Version::Digest(digest) => digest,
        };
        if repository.manifest(digest)?.is_none() {
            return Err(Refusal::manifest_unknown(&version));
        }
        if is_referred(&shared.store, &repository, digest)? {
            let message = "an index refers to this manifest; delete that first";
            return Err(Refusal::new(StatusCode::CONFLICT, "DENIED", message));
        }
        let (_, manifest) = read_manifest(&shared.store, digest)?;
        let subject = manifest.subject().map(|subject| &subject.digest);
        repository.remove_manifest(digest, subject)?;
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::ACCEPTED, &[]))
}
