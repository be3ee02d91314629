//! Pushing images.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::blob::REPORT;
use super::blocking::blocking;
use super::client::Client;
use super::config::{Endpoint, host_of};
use super::credentials::Credential;
use super::progress::{BlobKind, BlobReporter, BlobState, Observer};
use super::session::{Session, is_temporary, retry_after, status_error};
use super::transport::{Request, same_origin};
use crate::digest::Digest;
use crate::manifest::{Descriptor, INDEX_DEPTH, MANIFEST_LIMIT, Manifest};
use crate::platform::{Platform, PlatformChoice};
use crate::reference::Reference;
use crate::store::Store;
use crate::{Error, ErrorKind, Result};

const CHUNK: usize = 256 << 10;

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Which platforms. `None`: all if all are here, else this machine's.
    pub platform: Option<PlatformChoice>,
    /// The credential for the reference's registry; else [`Config::credentials`](super::Config) is asked.
    pub credential: Option<Credential>,
}

/// What a push left at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The manifest or index that the name stands for there now.
    pub target: Descriptor,
}

impl Client {
    /// Sends the image that `reference` names in `store` to its registry: what is missing there, the manifest last.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the image or a part of it is not in the store;
    /// [`Unreachable`](ErrorKind::Unreachable), [`Denied`](ErrorKind::Denied), [`Unsupported`](ErrorKind::Unsupported)
    /// if the registry refuses it.
    pub async fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        store: &Store,
        observer: &Observer<'_>,
    ) -> Result<Pushed> {
        let given = options.credential.clone().map(|credential| (reference.domain(), credential));
        let session = Session::new(&self.transport, given);
        let (owned, name, choice) = (store.clone(), reference.clone(), options.platform.clone());
        let plan = blocking(move || Plan::new(&owned, &name, choice.as_ref())).await?;
        let push = Push {
            session: &session,
            endpoint: self.transport.config.push_endpoint(reference.domain())?,
            reference,
            scopes: [format!("repository:{}:pull,push", reference.path())],
            store,
            observer,
            plan: &plan,
        };
        push.run().await
    }
}

/// What is to be sent.
struct Plan {
    /// Configurations and layers, each once.
    blobs: Vec<(Descriptor, BlobKind)>,
    /// Manifests, children before the indexes that list them; the last one gets the name.
    manifests: Vec<Descriptor>,
    /// Repositories of the same registry that probably have a blob.
    elsewhere: HashMap<Digest, String>,
}

impl Plan {
    fn new(store: &Store, reference: &Reference, choice: Option<&PlatformChoice>) -> Result<Self> {
        let resolved = store.resolve(&reference.canonical())?;
        let whole = resolved.selected().clone();
        let target = match choice {
            Some(choice) => match choice.single() {
                Some(platform) => store.image(&whole, &platform)?.target,
                None => whole,
            },
            None if is_complete(store, &whole)? => whole,
            None => store.image(&whole, &Platform::host())?.target,
        };
        let mut plan = Self { blobs: Vec::new(), manifests: Vec::new(), elsewhere: HashMap::new() };
        plan.add(store, &target, 0)?;
        plan.find_elsewhere(store, reference)?;
        Ok(plan)
    }

    fn add(&mut self, store: &Store, target: &Descriptor, depth: usize) -> Result<()> {
        let manifest = store.manifest(target)?;
        for child in manifest.children() {
            if !store.blobs().contains(&child.digest) {
                return Err(Error::not_found(format!(
                    "push image {}: its content {} is not in the store; pull it again, with all platforms, or choose one to push",
                    target.digest, child.digest
                )));
            }
        }
        match manifest {
            Manifest::Image(image) => {
                self.add_blob(&image.config, BlobKind::Config);
                for layer in &image.layers {
                    self.add_blob(layer, BlobKind::Layer);
                }
            }
            Manifest::Index(index) => {
                crate::store::check_depth(target, depth)?;
                for child in &index.manifests {
                    if child.is_manifest() || child.is_index() {
                        self.add(store, child, depth + 1)?;
                    } else {
                        self.add_blob(child, BlobKind::Layer);
                    }
                }
            }
        }
        self.manifests.push(target.clone());
        Ok(())
    }

    fn add_blob(&mut self, blob: &Descriptor, kind: BlobKind) {
        if !self.blobs.iter().any(|(known, _)| known.digest == blob.digest) {
            self.blobs.push((blob.clone(), kind));
        }
    }

    /// Other repositories of the registry under whose names we have the same layers.
    fn find_elsewhere(&mut self, store: &Store, reference: &Reference) -> Result<()> {
        for record in store.images()? {
            let Some(name) = record.reference else { continue };
            if name.domain() != reference.domain() || name.path() == reference.path() {
                continue;
            }
            for manifest in store.manifests(&record.target)? {
                let Manifest::Image(image) = store.manifest(&manifest)? else { continue };
                for layer in image.layers {
                    self.elsewhere.entry(layer.digest).or_insert_with(|| name.path().to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Whether everything that `target` reaches is here.
fn is_complete(store: &Store, target: &Descriptor) -> Result<bool> {
    let mut pending = vec![(target.clone(), 0)];
    while let Some((next, depth)) = pending.pop() {
        if !store.blobs().contains(&next.digest) {
            return Ok(false);
        }
        if (next.is_manifest() || next.is_index()) && depth <= INDEX_DEPTH {
            let manifest = store.manifest(&next)?;
            pending.extend(manifest.children().map(|child| (child.clone(), depth + 1)));
        }
    }
    Ok(true)
}

struct Push<'a> {
    session: &'a Session<'a>,
    endpoint: Endpoint,
    reference: &'a Reference,
    scopes: [String; 1],
    store: &'a Store,
    observer: &'a Observer<'a>,
    plan: &'a Plan,
}

impl Push<'_> {
    async fn run(&self) -> Result<Pushed> {
        for (blob, kind) in &self.plan.blobs {
            self.reporter(&blob.digest, *kind).report(BlobState::Waiting);
        }
        let mut sends: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(self.plan.blobs.len());
        for (blob, kind) in &self.plan.blobs {
            sends.push(Box::pin(self.blob(blob, *kind)));
        }
        let parallel = self.session.transport.config.parallel.max(1);
        stream::iter(sends).buffer_unordered(parallel).try_collect::<()>().await?;
        let (target, children) = self.plan.manifests.split_last().ok_or_else(|| {
            Error::not_found(format!("push {}: nothing to push", self.reference.familiar()))
        })?;
        for child in children {
            self.manifest(child, &child.digest.to_string()).await?;
        }
        let version = self.reference.tag().map(str::to_owned);
        let version = version.unwrap_or_else(|| target.digest.to_string());
        self.manifest(target, &version).await?;
        Ok(Pushed { target: target.clone() })
    }

    async fn blob(&self, blob: &Descriptor, kind: BlobKind) -> Result<()> {
        let reporter = self.reporter(&blob.digest, kind);
        if self.exists(blob).await? {
            reporter.report(BlobState::Exists);
            return Ok(());
        }
        let retry = self.session.transport.config.retry;
        let mut attempt = 1;
        loop {
            let (error, asked) = match self.transfer(blob, reporter).await {
                Ok(state) => {
                    reporter.report(state);
                    return Ok(());
                }
                Err((error, asked)) => (error, asked),
            };
            if error.kind() != ErrorKind::Unreachable || attempt >= retry.attempts {
                return Err(error);
            }
            let after = retry.pause_after(attempt, asked);
            reporter.report(BlobState::Retrying { after, reason: error.to_string() });
            tokio::time::sleep(after).await;
            attempt += 1;
        }
    }

    async fn exists(&self, blob: &Descriptor) -> Result<bool> {
        let request = self.request(Method::HEAD, &format!("blobs/{}", blob.digest)).await?;
        let response = self.session.send(&self.endpoint, &self.scopes, &request).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            // Some registries deny looking where they allow pushing; the upload will tell.
            status if status.is_client_error() => Ok(false),
            _ => Err(status_error(&self.attempt(), response).await),
        }
    }

    /// Starts an upload, which may turn out to be a mount, and sends the blob whole.
    async fn transfer(
        &self,
        blob: &Descriptor,
        reporter: BlobReporter<'_>,
    ) -> Result<BlobState, (Error, Option<Duration>)> {
        let from = self.plan.elsewhere.get(&blob.digest);
        let started = self.start(blob, from).await.map_err(|error| (error, None))?;
        if started.status() == StatusCode::CREATED {
            return Ok(BlobState::Mounted { from: from.cloned().unwrap_or_default() });
        }
        if started.status() != StatusCode::ACCEPTED {
            let asked = retry_after(started.headers());
            return Err((status_error(&self.attempt(), started).await, asked));
        }
        let location = location(&started).map_err(|error| (error, None))?;
        let response = self.send_content(blob, location, reporter).await.map_err(|e| (e, None))?;
        if response.status().is_success() {
            return Ok(BlobState::Complete);
        }
        let (status, asked) = (response.status(), retry_after(response.headers()));
        let error = status_error(&self.attempt(), response).await;
        // A token that ended during a long upload, and an upload the registry forgot, are worth another try.
        let again = is_temporary(status)
            || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND);
        match again {
            true => Err((Error::caused(ErrorKind::Unreachable, self.attempt(), error), asked)),
            false => Err((error, None)),
        }
    }

    async fn start(&self, blob: &Descriptor, from: Option<&String>) -> Result<Response> {
        let mut request = self.request(Method::POST, "blobs/uploads/").await?;
        let mut scopes = self.scopes.to_vec();
        if let Some(from) = from {
            let digest = blob.digest.to_string();
            let mut query = request.url.query_pairs_mut();
            query.append_pair("mount", &digest).append_pair("from", from);
            scopes.push(format!("repository:{from}:pull"));
        }
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        self.session.send(&self.endpoint, &scopes, &request).await
    }

    async fn send_content(
        &self,
        blob: &Descriptor,
        mut location: Url,
        reporter: BlobReporter<'_>,
    ) -> Result<Response> {
        let base = self.session.transport.base(&self.endpoint).await?;
        location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        if base.scheme() == "https" && location.scheme() == "http" {
            let host = host_of(&location);
            return Err(Error::new(
                ErrorKind::Denied,
                format!("{}: the registry wants it sent to {host} without TLS", self.attempt()),
            ));
        }
        // The start of the upload has just renewed it; a challenge could not be answered any more.
        let authorization = self.session.last_authorization(&self.endpoint, &self.scopes);
        let is_own = same_origin(&base, &location);
        let authorization = authorization.filter(|_| is_own);
        let sent = Arc::new(AtomicU64::new(0));
        let body = self.open(blob, Arc::clone(&sent)).await?;
        let mut request = Request::new(Method::PUT, location);
        if is_own {
            request.own_headers.clone_from(&self.endpoint.headers);
        }
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers.insert(CONTENT_TYPE, octets);
        let value = authorization.as_ref().map(|authorization| &authorization.value);
        let upload = self.session.transport.upload(request, value, body);
        self.watch(upload, blob, &sent, reporter).await
    }

    /// Reports how an upload gets on, and breaks it off when it does not.
    async fn watch(
        &self,
        upload: impl Future<Output = Result<Response>>,
        blob: &Descriptor,
        sent: &AtomicU64,
        reporter: BlobReporter<'_>,
    ) -> Result<Response> {
        let stall = self.session.transport.config.stall;
        let mut upload = std::pin::pin!(upload);
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            match tokio::time::timeout(REPORT, upload.as_mut()).await {
                Ok(done) => return done,
                Err(_) => {
                    let done = sent.load(Ordering::Relaxed);
                    if done != last {
                        (last, moved) = (done, Instant::now());
                        reporter.report(BlobState::Transferring { done, total: blob.size });
                    }
                }
            }
            // After the last byte the registry may hash for a while.
            let patience = if last >= blob.size { stall.saturating_mul(10) } else { stall };
            if moved.elapsed() > patience {
                let attempt = format!("{}: the upload of {} stalls", self.attempt(), blob.digest);
                return Err(Error::new(ErrorKind::Unreachable, attempt));
            }
        }
    }

    async fn open(&self, blob: &Descriptor, sent: Arc<AtomicU64>) -> Result<Body> {
        let path = self.store.blobs().path(&blob.digest);
        let failed = |source| Error::io("open blob", &path, source);
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        file.seek(SeekFrom::Start(0)).await.map_err(failed)?;
        let chunks = stream::unfold((file, sent), |(mut file, sent)| async move {
            let mut chunk = vec![0; CHUNK];
            match file.read(&mut chunk).await {
                Ok(0) => None,
                Ok(count) => {
                    chunk.truncate(count);
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                    Some((Ok(Bytes::from(chunk)), (file, sent)))
                }
                Err(error) => Some((Err(error), (file, sent))),
            }
        });
        Ok(Body::wrap_stream(chunks))
    }

    async fn manifest(&self, target: &Descriptor, version: &str) -> Result<()> {
        let reporter = self.reporter(&target.digest, BlobKind::Manifest);
        let (store, digest) = (self.store.clone(), target.digest.clone());
        let bytes = blocking(move || store.blobs().read(&digest, MANIFEST_LIMIT)).await?;
        let mut request = self.request(Method::PUT, &format!("manifests/{version}")).await?;
        let media_type = HeaderValue::from_str(&target.media_type)
            .map_err(|source| Error::caused(ErrorKind::InvalidInput, self.attempt(), source))?;
        request.headers.insert(CONTENT_TYPE, media_type);
        request.body = Some(bytes);
        let response = self.session.send(&self.endpoint, &self.scopes, &request).await?;
        if !response.status().is_success() {
            return Err(status_error(&self.attempt(), response).await);
        }
        reporter.report(BlobState::Complete);
        Ok(())
    }

    async fn request(&self, method: Method, rest: &str) -> Result<Request> {
        let base = self.session.transport.base(&self.endpoint).await?;
        self.endpoint.request(method, &base, &format!("{}/{rest}", self.reference.path()))
    }

    fn attempt(&self) -> String {
        format!("push {}", self.reference.familiar())
    }

    fn reporter<'a>(&'a self, digest: &'a Digest, kind: BlobKind) -> BlobReporter<'a> {
        BlobReporter { observer: self.observer, digest, kind }
    }
}

/// Where an upload continues.
fn location(response: &Response) -> Result<Url> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.and_then(|text| response.url().join(text).ok());
    location.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(|| {
        let host = host_of(response.url());
        Error::unsupported(format!("push to {host}: it starts an upload without saying where"))
    })
}
