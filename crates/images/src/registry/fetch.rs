//! Single pieces of a repository, for those who mirror one: what a tag stands for, a blob's size, a blob.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::CONTENT_LENGTH;

use super::blob::Download;
use super::blocking::blocking;
use super::client::Client;
use super::credentials::Credential;
use super::progress::{BlobKind, BlobReporter, Observer};
use super::pull::{fetch_manifest, manifest_request};
use super::session::{Session, status_error};
use crate::digest::Digest;
use crate::lease::Lease;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::{Error, ErrorKind, Result};

impl Client {
    /// What a name stands for at its registry, which is cheaper than [`inspect`](Self::inspect). `None` if the registry
    /// does not say without sending the manifest.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>> {
        let session = Session::new(&self.transport, None);
        let endpoint = self.transport.config.origin(reference.domain())?;
        let base = self.transport.base(&endpoint).await?;
        let request =
            manifest_request(Method::HEAD, &endpoint, &base, reference, &reference.version())?;
        let response = session.send(&endpoint, &scopes(reference), &request).await?;
        if !response.status().is_success() {
            let attempt = format!("look up {}", reference.familiar());
            return Err(status_error(&attempt, response).await);
        }
        let stated = response.headers().get("docker-content-digest");
        Ok(stated.and_then(|value| Digest::parse(value.to_str().ok()?).ok()))
    }

    /// The size in bytes of a blob of `repository` at its registry.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Unreachable`](ErrorKind::Unreachable), [`Denied`](ErrorKind::Denied).
    pub async fn blob_size(&self, repository: &Reference, digest: &Digest) -> Result<u64> {
        let session = Session::new(&self.transport, None);
        let endpoint = self.transport.config.origin(repository.domain())?;
        let base = self.transport.base(&endpoint).await?;
        let path = format!("{}/blobs/{digest}", repository.path());
        let request = endpoint.request(Method::HEAD, &base, &path)?;
        let response = session.send(&endpoint, &scopes(repository), &request).await?;
        let attempt = format!("look up blob {digest} of {}", repository.familiar_name());
        if !response.status().is_success() {
            return Err(status_error(&attempt, response).await);
        }
        // Of a HEAD's answer the client library knows no length: it has no body.
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        length.and_then(|length| length.parse().ok()).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{attempt}: its size is not told"))
        })
    }

    /// Gets one blob of `repository` into the lease's store, verified, and resumed where an earlier download stopped.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub async fn fetch_blob(
        &self,
        repository: &Reference,
        target: &Descriptor,
        lease: &Arc<Lease>,
        observer: &Observer<'_>,
    ) -> Result<()> {
        let session = Session::new(&self.transport, None);
        let endpoints = [self.transport.config.origin(repository.domain())?];
        let download = Download {
            session: &session,
            endpoints: &endpoints,
            repository: repository.path(),
            scopes: &scopes(repository),
            lease,
            replaces: false,
        };
        let reporter = BlobReporter { observer, digest: &target.digest, kind: BlobKind::Layer };
        download.run(target, reporter).await
    }

    /// Gets a manifest, index or blob of `repository` again, verified, in place of what is there damaged or missing.
    ///
    /// # Errors
    /// As [`pull`](Self::pull). What is there stays until the right bytes are here.
    pub async fn restore(
        &self,
        repository: &Reference,
        target: &Descriptor,
        credential: Option<Credential>,
        lease: &Arc<Lease>,
        observer: &Observer<'_>,
    ) -> Result<()> {
        let given = credential.map(|credential| (repository.domain(), credential));
        let session = Session::new(&self.transport, given);
        let (endpoints, scopes) =
            (self.transport.config.endpoints(repository)?, scopes(repository));
        if target.is_manifest() || target.is_index() {
            let version = target.digest.to_string();
            let expected = Some(target);
            let remote =
                fetch_manifest(&session, &endpoints, repository, &version, expected, &scopes);
            let (lease, bytes) = (Arc::clone(lease), remote.await?.bytes);
            let digest = target.digest.clone();
            return blocking(move || lease.replace(&digest, &bytes)).await;
        }
        let download = Download {
            session: &session,
            endpoints: &endpoints,
            repository: repository.path(),
            scopes: &scopes,
            lease,
            replaces: true,
        };
        let reporter = BlobReporter { observer, digest: &target.digest, kind: BlobKind::Layer };
        download.run(target, reporter).await
    }
}

fn scopes(reference: &Reference) -> [String; 1] {
    [format!("repository:{}:pull", reference.path())]
}
