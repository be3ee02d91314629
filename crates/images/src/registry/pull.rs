//! Pulling images.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};

use super::blob::{Download, POLL};
use super::blocking::blocking;
use super::client::Client;
use super::config::Endpoint;
use super::credentials::Credential;
use super::progress::{BlobKind, BlobReporter, BlobState, Observer, Progress};
use super::session::{Session, read_body, status_error};
use super::transport::Request;
use crate::content::Acquired;
use crate::digest::{Digest, Hasher};
use crate::image::Image;
use crate::lease::Lease;
use crate::manifest::{
    CONFIG_LIMIT, Descriptor, ImageManifest, Index, MANIFEST_LIMIT, Manifest, media_type,
};
use crate::platform::PlatformChoice;
use crate::reference::Reference;
use crate::store::{Store, check_depth};
use crate::{Error, ErrorKind, Result};

/// How often a partial download that someone is writing is looked at before it is left alone.
const DISCARD_TRIES: usize = 10;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Which platforms.
    pub platform: PlatformChoice,
    /// The credential for the reference's registry; else [`Config::credentials`](super::Config) is asked.
    pub credential: Option<Credential>,
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// The name it has in the store now.
    pub reference: Reference,
    /// The manifest or index that the name stands for.
    pub target: Descriptor,
    /// The manifests of the platforms asked for.
    pub manifests: Vec<Descriptor>,
    /// Whether the name stood for something else before, or for nothing.
    pub changed: bool,
}

/// What a registry has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remote {
    /// Points to the manifest or index.
    pub target: Descriptor,
    /// The manifest or index.
    pub manifest: Manifest,
    /// Its bytes, which hash to the target's digest.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Gets an image into `store` and names it. Nothing is downloaded that is there already.
    ///
    /// On an error or when the future is dropped, what came completely is subject to the next garbage collection, and
    /// partial downloads are continued by the next pull.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the registry has no such image, or not for the platform;
    /// [`Unreachable`](ErrorKind::Unreachable), [`Denied`](ErrorKind::Denied), [`Integrity`](ErrorKind::Integrity) for
    /// wrong content, [`Unsupported`](ErrorKind::Unsupported) for things that are no images,
    /// [`Exhausted`](ErrorKind::Exhausted) if the disk is full.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        store: &Store,
        observer: &Observer<'_>,
    ) -> Result<Pulled> {
        let given = options.credential.clone().map(|credential| (reference.domain(), credential));
        let session = Session::new(&self.transport, given);
        let owned = store.clone();
        let lease = Arc::new(blocking(move || owned.lease()).await?);
        let pull = Pull {
            session: &session,
            reference,
            endpoints: self.transport.config.endpoints(reference)?,
            scopes: [format!("repository:{}:pull", reference.path())],
            choice: &options.platform,
            lease,
            observer,
        };
        pull.run().await
    }

    /// Looks at what a registry has under a name, without storing anything.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub async fn inspect(
        &self,
        reference: &Reference,
        credential: Option<Credential>,
    ) -> Result<Remote> {
        let given = credential.map(|credential| (reference.domain(), credential));
        let session = Session::new(&self.transport, given);
        let endpoints = self.transport.config.endpoints(reference)?;
        let scopes = [format!("repository:{}:pull", reference.path())];
        fetch_manifest(&session, &endpoints, reference, &reference.version(), None, &scopes).await
    }
}

struct Pull<'a> {
    session: &'a Session<'a>,
    reference: &'a Reference,
    endpoints: Vec<Endpoint>,
    scopes: [String; 1],
    choice: &'a PlatformChoice,
    lease: Arc<Lease>,
    observer: &'a Observer<'a>,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Pulled> {
        let (reference, version) = (self.reference, self.reference.version());
        let remote = self.fetch(&version, None).await?;
        let digest = remote.target.digest.clone();
        (self.observer)(Progress::Resolved { reference: reference.clone(), digest });
        let target = remote.target.clone();
        let mut manifests = Vec::new();
        self.take(remote, 0, &mut manifests).await?;
        if manifests.is_empty() {
            return Err(Error::not_found(format!(
                "pull {}: its index is empty",
                reference.familiar()
            )));
        }
        let (lease, key, named) = (Arc::clone(&self.lease), reference.key(), target.clone());
        let changed = blocking(move || {
            let store = lease.store();
            let records = store.images()?;
            let known = |r: &crate::ImageRecord| {
                r.reference.as_ref() == Some(&key) && r.target.digest == named.digest
            };
            let changed = !records.iter().any(known);
            store.tag(&key, &named)?;
            Ok(changed)
        });
        let changed = changed.await?;
        Ok(Pulled { reference: reference.key(), target, manifests, changed })
    }

    /// Stores a manifest or index and what of it was asked for.
    async fn take(&self, remote: Remote, depth: usize, taken: &mut Vec<Descriptor>) -> Result<()> {
        let Remote { target, manifest, bytes } = remote;
        match manifest {
            Manifest::Image(image) => {
                let is_top = depth == 0;
                self.take_image(target.clone(), *image, is_top).await?;
                self.put(&target, bytes).await?;
                taken.push(target);
            }
            Manifest::Index(index) => {
                check_depth(&target, depth)?;
                self.put(&target, bytes).await?;
                self.take_index(&index, depth, taken).await?;
            }
        }
        Ok(())
    }

    /// Boxed, since an index may hold indexes.
    fn take_index<'b>(
        &'b self,
        index: &'b Index,
        depth: usize,
        taken: &'b mut Vec<Descriptor>,
    ) -> BoxFuture<'b, Result<()>> {
        Box::pin(self.choose(index, depth, taken))
    }

    async fn choose(&self, index: &Index, depth: usize, taken: &mut Vec<Descriptor>) -> Result<()> {
        let Some(platform) = self.choice.single() else {
            for child in &index.manifests {
                if child.is_manifest() || child.is_index() {
                    let remote = self.fetch(&child.digest.to_string(), Some(child)).await?;
                    self.take_any(remote, child, depth, taken).await?;
                }
            }
            return Ok(());
        };
        let mut last = None;
        for child in index.candidates(&platform) {
            let remote = self.fetch(&child.digest.to_string(), Some(child)).await?;
            match self.take(remote, depth + 1, taken).await {
                // An entry that states no platform may turn out to be for another.
                Err(error) if error.kind() == ErrorKind::NotFound && child.platform.is_none() => {
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::not_found(format!(
                "pull {}: it is not offered for platform {platform}, only for {}",
                self.reference.familiar(),
                index.offered()
            ))
        }))
    }

    /// Takes one entry of an index of which all is wanted, attestations included.
    async fn take_any(
        &self,
        remote: Remote,
        child: &Descriptor,
        depth: usize,
        taken: &mut Vec<Descriptor>,
    ) -> Result<()> {
        match &remote.manifest {
            Manifest::Image(image) if child.is_attestation() || image.require_image().is_err() => {
                self.layers(image).await?;
                self.config(&image.config).await?;
                self.put(&remote.target, remote.bytes.clone()).await
            }
            _ => self.take(remote, depth + 1, taken).await,
        }
    }

    async fn take_image(
        &self,
        target: Descriptor,
        manifest: ImageManifest,
        is_top: bool,
    ) -> Result<()> {
        manifest.require_image()?;
        // All layers are announced before the first byte comes, base first, as people expect to see them.
        for layer in &manifest.layers {
            self.reporter(&layer.digest, BlobKind::Layer).report(BlobState::Waiting);
        }
        self.config(&manifest.config).await?;
        let (lease, digest) = (Arc::clone(&self.lease), manifest.config.digest.clone());
        let config = blocking(move || lease.store().blobs().read(&digest, CONFIG_LIMIT)).await?;
        let image = Image::parse(target, manifest, &config)?;
        self.check_platform(&image, is_top)?;
        let image = Arc::new(image);
        (self.observer)(Progress::Image(Arc::clone(&image)));
        self.layers(&image.manifest).await
    }

    /// An image that is no index must be for the platform, if one was asked for by name.
    fn check_platform(&self, image: &Image, is_top: bool) -> Result<()> {
        let wanted = match (self.choice, image.target.platform.is_some()) {
            (PlatformChoice::Exactly(platform), false) => platform.clone(),
            (PlatformChoice::Host, false) if !is_top => crate::Platform::host(),
            _ => return Ok(()),
        };
        if wanted.rank(&image.platform).is_some() {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "pull {}: it is not offered for platform {wanted}, only for {}",
            self.reference.familiar(),
            image.platform
        )))
    }

    async fn layers(&self, manifest: &ImageManifest) -> Result<()> {
        let mut fetches: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(manifest.layers.len());
        for layer in &manifest.layers {
            fetches.push(Box::pin(self.blob(layer, BlobKind::Layer)));
        }
        let parallel = self.session.transport.config.parallel.max(1);
        let fetched = stream::iter(fetches).buffer_unordered(parallel).try_collect().await;
        self.or_discard(fetched, &manifest.layers).await
    }

    /// Removes partial downloads that are worth less than their space: on a full disk, or of a registry that lies.
    /// Whatever stands in the way of that is no reason to hide the failure it follows.
    async fn or_discard(&self, stored: Result<()>, targets: &[Descriptor]) -> Result<()> {
        if let Err(error) = &stored
            && matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::Integrity)
        {
            self.discard(targets).await;
        }
        stored
    }

    async fn discard(&self, targets: &[Descriptor]) {
        for target in targets {
            // Whoever wrote it has stopped or is about to; another pull of the same layer goes on.
            for _ in 0..DISCARD_TRIES {
                let (lease, target) = (Arc::clone(&self.lease), target.clone());
                let tried = blocking(move || lease.store().blobs().try_writer(&target)).await;
                match tried {
                    Ok(Acquired::Writer(writer)) => {
                        let _ = blocking(move || writer.discard()).await;
                        break;
                    }
                    Ok(Acquired::Busy) => tokio::time::sleep(POLL).await,
                    Ok(Acquired::Exists) | Err(_) => break,
                }
            }
        }
    }

    async fn config(&self, target: &Descriptor) -> Result<()> {
        let fetched = self.blob(target, BlobKind::Config).await;
        self.or_discard(fetched, std::slice::from_ref(target)).await
    }

    async fn blob(&self, target: &Descriptor, kind: BlobKind) -> Result<()> {
        let download = Download {
            session: self.session,
            endpoints: &self.endpoints,
            repository: self.reference.path(),
            scopes: &self.scopes,
            lease: &self.lease,
            replaces: false,
        };
        download.run(target, self.reporter(&target.digest, kind)).await
    }

    /// Stores a manifest's bytes, which were verified when they came.
    async fn put(&self, target: &Descriptor, bytes: Vec<u8>) -> Result<()> {
        let (lease, written) = (Arc::clone(&self.lease), target.clone());
        let stored = blocking(move || {
            let Acquired::Writer(mut writer) = lease.writer(&written)? else {
                // Complete, or someone else is writing these few bytes just now: write them beside.
                return lease.put(&written.media_type, &bytes).map(drop);
            };
            writer.restart()?;
            writer.append(&bytes)?;
            writer.commit()
        });
        self.or_discard(stored.await, std::slice::from_ref(target)).await
    }

    /// Gets a manifest from the store or the registry. `expected` is what an index says of it.
    async fn fetch(&self, version: &str, expected: Option<&Descriptor>) -> Result<Remote> {
        if let Some(expected) = expected
            && let Some(known) = self.fetch_known(expected).await?
        {
            return Ok(known);
        }
        fetch_manifest(
            self.session,
            &self.endpoints,
            self.reference,
            version,
            expected,
            &self.scopes,
        )
        .await
    }

    async fn fetch_known(&self, expected: &Descriptor) -> Result<Option<Remote>> {
        let (lease, target) = (Arc::clone(&self.lease), expected.clone());
        blocking(move || {
            lease.protect([&target.digest])?;
            let blobs = lease.store().blobs();
            if !blobs.contains(&target.digest) {
                return Ok(None);
            }
            let bytes = blobs.read(&target.digest, MANIFEST_LIMIT)?;
            let manifest = Manifest::parse(&bytes, Some(&target.media_type))?;
            Ok(Some(Remote { target, manifest, bytes }))
        })
        .await
    }

    fn reporter<'a>(&'a self, digest: &'a Digest, kind: BlobKind) -> BlobReporter<'a> {
        BlobReporter { observer: self.observer, digest, kind }
    }
}

/// Gets a manifest from the first endpoint that has it.
pub(super) async fn fetch_manifest(
    session: &Session<'_>,
    endpoints: &[Endpoint],
    reference: &Reference,
    version: &str,
    expected: Option<&Descriptor>,
    scopes: &[String],
) -> Result<Remote> {
    let digest = match expected {
        Some(expected) => Some(expected.digest.clone()),
        None => reference.digest().cloned(),
    };
    let mut last = None;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.resolve || digest.is_some()) {
        match fetch_from(session, endpoint, reference, version, digest.as_ref(), scopes).await {
            Ok((media_type, bytes)) => {
                let manifest = Manifest::parse(&bytes, media_type.as_deref())?;
                let mut target = Descriptor::of(manifest.media_type(), &bytes);
                target.digest = digest.unwrap_or(target.digest);
                if let Some(expected) = expected {
                    target.platform.clone_from(&expected.platform);
                }
                return Ok(Remote { target, manifest, bytes });
            }
            Err(error) if endpoint.is_mirror => {
                tracing::debug!(mirror = endpoint.host, %error, "mirror did not give the manifest");
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::not_found(format!("pull {}", reference.familiar()))))
}

/// A request for a manifest of any form that is understood.
pub(super) fn manifest_request(
    method: Method,
    endpoint: &Endpoint,
    base: &Url,
    reference: &Reference,
    version: &str,
) -> Result<Request> {
    let path = format!("{}/manifests/{version}", reference.path());
    let mut request = endpoint.request(method, base, &path)?;
    for accepted in [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
    ] {
        request.headers.append(ACCEPT, HeaderValue::from_static(accepted));
    }
    Ok(request)
}

async fn fetch_from(
    session: &Session<'_>,
    endpoint: &Endpoint,
    reference: &Reference,
    version: &str,
    digest: Option<&Digest>,
    scopes: &[String],
) -> Result<(Option<String>, Vec<u8>)> {
    let base = session.transport.base(endpoint).await?;
    let request = manifest_request(Method::GET, endpoint, &base, reference, version)?;
    let response = session.send(endpoint, scopes, &request).await?;
    let attempt = format!("pull {}", reference.familiar());
    if !response.status().is_success() {
        return Err(status_error(&attempt, response).await);
    }
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.map(str::to_owned);
    let stated = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
    let stated = stated.and_then(|text| Digest::parse(text).ok());
    let bytes = read_body(response, MANIFEST_LIMIT, session.transport.config.stall).await?;
    for wanted in digest.into_iter().chain(stated.as_ref()) {
        let mut hasher = Hasher::new(wanted.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *wanted {
            return Err(Error::integrity(format!(
                "{attempt}: the manifest from {} hashes to {found} instead of {wanted}; the registry is damaged or tampered with",
                endpoint.host
            )));
        }
    }
    Ok((media_type, bytes))
}
