//! A pull-through cache: what is not here is fetched from another registry, verified, kept, and sent on while it comes.
//!
//! A blob is downloaded once however many ask: the download is a task of its own, and each request follows the growing
//! file. The last byte is held back until the digest was found right, so no client ever takes wrong content for whole.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brig_images::registry::{self, Client, HostConfig, Security};
use brig_images::{Descriptor, Digest, ErrorKind as Kind, Reference};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{mpsc, watch};

use crate::api::{Found, Source, find, store};
use crate::blocking::blocking;
use crate::body::{read_at, send};
use crate::config::Upstream;
use crate::error::{Error, ErrorKind, Result};
use crate::refusal::{Refusal, chain};
use crate::route::Version;
use crate::server::Shared;

/// How often a growing file is looked at when nothing is told.
const POLL: Duration = Duration::from_millis(50);

/// The registry behind this one.
#[derive(Debug)]
pub(crate) struct Proxy {
    client: Client,
    domain: String,
    downloads: Arc<Mutex<HashMap<Digest, watch::Receiver<State>>>>,
}

/// How a download is getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has come further since the last time.
    Running,
    Done,
    Failed(String),
}

impl Proxy {
    pub(crate) fn new(upstream: &Upstream) -> Result<Self> {
        let url = &upstream.url;
        let wrong = || Error::invalid(format!("use upstream {url:?}: want http(s)://HOST[:PORT]"));
        let (scheme, host) = url.split_once("://").ok_or_else(wrong)?;
        let host = host.strip_suffix('/').unwrap_or(host);
        let (security, port) = match scheme {
            "https" => (Security::Tls, 443),
            "http" => (Security::PlainHttp, 80),
            _ => return Err(wrong()),
        };
        let domain = match host {
            "docker.io" | "registry-1.docker.io" | "index.docker.io" => "docker.io".to_owned(),
            // With its port, a host is one by Docker's rules whatever its name.
            host if host.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                host.to_owned()
            }
            host => format!("{host}:{port}"),
        };
        Reference::parse(&format!("{domain}/x")).map_err(|source| {
            Error::caused(ErrorKind::InvalidInput, format!("use upstream {url:?}"), source)
        })?;
        let mut config = registry::Config {
            credentials: upstream.credentials.clone(),
            user_agent: concat!("brig-registry/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..registry::Config::default()
        };
        let host = HostConfig { security: Some(security), ..HostConfig::default() };
        config.hosts.insert(domain.clone(), host);
        Ok(Self { client: Client::new(config), domain, downloads: Arc::default() })
    }

    fn reference(&self, name: &str, version: &str) -> Result<Reference, Refusal> {
        let reference = Reference::parse(&format!("{}/{name}{version}", self.domain));
        reference.map_err(|error| Refusal::internal(&error))
    }

    /// A manifest: for a tag what it stands for upstream now, or stood for when upstream last answered.
    pub(crate) async fn manifest(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        version: &Version,
    ) -> Result<Found, Refusal> {
        let suffix = match version {
            Version::Tag(tag) => format!(":{tag}"),
            Version::Digest(digest) => format!("@{digest}"),
        };
        let reference = self.reference(name, &suffix)?;
        let (owned, repository, wanted) = (Arc::clone(shared), name.to_owned(), version.clone());
        let known = blocking(move || {
            let found = find(&owned, &repository, &wanted)?;
            if let Some(found) = &found {
                owned.repositories.repository(&repository).touch_manifest(&found.digest)?;
            }
            Ok::<_, Refusal>(found)
        });
        let known = known.await?;
        if let (Some(_), Version::Digest(_)) = (&known, version) {
            return known.ok_or_else(|| Refusal::manifest_unknown(version));
        }
        let fetched = self.fetch(shared, name, version, &reference, known.as_ref()).await;
        match (fetched, known) {
            (Ok(Some(found)), _) | (Ok(None), Some(found)) => Ok(found),
            (Ok(None), None) => Err(Refusal::manifest_unknown(version)),
            (Err(error), Some(found)) if error.kind() == Kind::Unreachable => {
                tracing::warn!(%reference, "upstream is not reached, what is cached is served: {}", chain(&error));
                Ok(found)
            }
            (Err(error), _) => Err(refusal(&error, || Refusal::manifest_unknown(version))),
        }
    }

    /// Gets a manifest unless upstream says that it is the known one.
    async fn fetch(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        version: &Version,
        reference: &Reference,
        known: Option<&Found>,
    ) -> brig_images::Result<Option<Found>> {
        if let Some(known) = known
            && self.client.digest_of(reference).await?.as_ref() == Some(&known.digest)
        {
            return Ok(None);
        }
        let remote = self.client.inspect(reference, None).await?;
        let (owned, name, version) = (Arc::clone(shared), name.to_owned(), version.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let lease = owned.store.lease()?;
            let repository = owned.repositories.repository(&name);
            let digest = remote.target.digest.clone();
            let _guard = owned.store.lock_shared()?;
            store(&lease, &repository, &digest, &remote.manifest, &remote.bytes)?;
            if let Version::Tag(tag) = &version {
                repository.set_tag(tag, &digest)?;
            }
            let media_type = remote.manifest.media_type().to_owned();
            Ok::<_, Refusal>(Found { digest, media_type, bytes: remote.bytes })
        });
        match kept.await {
            Ok(Ok(found)) => Ok(Some(found)),
            // It cannot be kept, as on a full disk: that was logged, and there is nothing to serve.
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// A blob that is not here. `entirely`: wait for all of it. `only_look`: just its size is wanted.
    pub(crate) async fn blob(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        digest: &Digest,
        entirely: bool,
        only_look: bool,
    ) -> Result<Source, Refusal> {
        let reference = self.reference(name, "")?;
        let size = self.client.blob_size(&reference, digest).await;
        let size = size.map_err(|error| refusal(&error, || Refusal::blob_unknown(digest)))?;
        if size > shared.config.limits.blob_bytes {
            return Err(Refusal::too_large("the blob is larger than this cache takes"));
        }
        let (sender, receiver) = mpsc::channel(2);
        if only_look {
            return Ok(Source::Coming(receiver, size));
        }
        let target = Descriptor::new("", digest.clone(), size);
        let mut state = self.download(shared, name, &reference, &target);
        if entirely {
            wait(&mut state).await?;
            let (owned, digest) = (Arc::clone(shared), digest.clone());
            let file = blocking(move || owned.store.blobs().open(&digest)).await?;
            return Ok(Source::Here(file, size));
        }
        let (owned, stall) = (Arc::clone(shared), shared.config.limits.stall);
        tokio::spawn(async move {
            if let Err(error) = follow(&owned, &target, state, &sender, stall).await {
                send(&sender, Err(error), stall).await;
            }
        });
        Ok(Source::Coming(receiver, size))
    }

    /// Joins the download of a blob, or starts it. It goes on when those who wait for it have gone.
    fn download(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        reference: &Reference,
        target: &Descriptor,
    ) -> watch::Receiver<State> {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = downloads.get(&target.digest) {
            return state.clone();
        }
        let (told, state) = watch::channel(State::Running);
        downloads.insert(target.digest.clone(), state.clone());
        let (shared, name) = (Arc::clone(shared), name.to_owned());
        let (client, all) = (self.client.clone(), Arc::clone(&self.downloads));
        let (reference, target) = (reference.clone(), target.clone());
        tokio::spawn(async move {
            let outcome = fetch_blob(&shared, &client, &name, &reference, &target, &told).await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&target.digest);
            told.send_replace(match outcome {
                Ok(()) => State::Done,
                Err(text) => {
                    tracing::warn!(%reference, digest = %target.digest, "fetch a blob: {text}");
                    State::Failed(text)
                }
            });
        });
        state
    }
}

async fn fetch_blob(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    reference: &Reference,
    target: &Descriptor,
    told: &watch::Sender<State>,
) -> Result<(), String> {
    let store = shared.store.clone();
    let lease = blocking(move || store.lease()).await.map_err(|refusal| refusal.message)?;
    let lease = Arc::new(lease);
    let observer = |_| told.send_modify(|_| {});
    let fetched = client.fetch_blob(reference, target, &lease, &observer).await;
    fetched.map_err(|error| chain(&error))?;
    let (repository, digest) = (shared.repositories.repository(name), target.digest.clone());
    let linked = blocking(move || {
        // As after a push: no collection between the content and its name here.
        let _guard = lease.store().lock_shared()?;
        repository.add_blob(&digest)
    });
    linked.await.map_err(|refusal| refusal.message)
}

async fn wait(state: &mut watch::Receiver<State>) -> Result<(), Refusal> {
    let ended = state.wait_for(|state| *state != State::Running).await;
    match ended.as_deref() {
        Ok(State::Done) => Ok(()),
        Ok(State::Failed(why)) => Err(unavailable(why)),
        _ => Err(unavailable("the download ended")),
    }
}

/// Sends a blob on while it comes.
async fn follow(
    shared: &Shared,
    target: &Descriptor,
    mut state: watch::Receiver<State>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    stall: Duration,
) -> io::Result<()> {
    let blobs = shared.store.blobs();
    let mut file: Option<Arc<File>> = None;
    let mut sent = 0;
    loop {
        let now = state.borrow_and_update().clone();
        let there = match now {
            State::Failed(why) => return Err(io::Error::other(why)),
            State::Done => {
                file = Some(Arc::new(blobs.open(&target.digest).map_err(io::Error::from)?));
                target.size
            }
            State::Running => {
                if file.is_none() {
                    file = blobs.open_partial(&target.digest).map(Arc::new);
                }
                let length = file.as_ref().map(|file| file.metadata()).transpose()?;
                length.map_or(0, |metadata| metadata.len()).min(target.size.saturating_sub(1))
            }
        };
        if there < sent {
            return Err(io::Error::other("the download had to start over"));
        }
        while let (Some(file), true) = (&file, sent < there) {
            let chunk = read_at(Arc::clone(file), sent, there - sent).await?;
            sent += chunk.len() as u64;
            if !send(sender, Ok(chunk), stall).await {
                return Ok(());
            }
        }
        if now == State::Done {
            return Ok(());
        }
        // The sender is gone only after a last word, which the next round reads.
        let _ = tokio::time::timeout(POLL, state.changed()).await;
    }
}

fn refusal(error: &brig_images::Error, unknown: impl FnOnce() -> Refusal) -> Refusal {
    match error.kind() {
        Kind::NotFound => unknown(),
        Kind::Denied => Refusal::new(StatusCode::FORBIDDEN, "DENIED", chain(error)),
        Kind::Unsupported | Kind::InvalidInput | Kind::Integrity => {
            Refusal::new(StatusCode::BAD_GATEWAY, "MANIFEST_INVALID", chain(error))
        }
        _ => unavailable(&chain(error)),
    }
}

fn unavailable(why: &str) -> Refusal {
    let message = format!("the registry behind this cache does not give it: {why}");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
}
