//! The server: connections, TLS, time limits, and garbage collection beside them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_images::Store;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::collect::{self, Collected};
use crate::config::Config;
use crate::error::Result;
use crate::htpasswd::Htpasswd;
use crate::proxy::Proxy;
use crate::refusal::chain;
use crate::repository::Repositories;
use crate::tls;
use crate::upload::Uploads;

/// How long requests may take to end once the server is to stop.
const FAREWELL: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be silent between requests.
const HEAD: Duration = Duration::from_secs(60);

/// A registry. Several processes may open the same directory; clones share it.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) repositories: Repositories,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) users: Option<Arc<Htpasswd>>,
    pub(crate) proxy: Option<Proxy>,
}

impl Registry {
    /// Opens the registry in `config.root`, creating it if need be. Blocks: call it where that is allowed.
    ///
    /// # Errors
    /// A setting is wrong, or the directory cannot be used.
    pub fn open(config: Config) -> Result<Self> {
        let store = Store::open(config.root.join("content"))?;
        let repositories = Repositories::open(&config.root)?;
        let limit = config.limits.uploads;
        let uploads = Arc::new(Uploads::open(&config.root, store.clone(), limit)?);
        let users = match &config.htpasswd {
            Some(path) => Some(Arc::new(Htpasswd::open(path)?)),
            None => None,
        };
        let tls = match &config.tls {
            Some((chain, key)) => Some(Tls(tls::acceptor(chain, key)?)),
            None => None,
        };
        let proxy = config.upstream.as_ref().map(Proxy::new).transpose()?;
        let shared = Shared { config, store, repositories, uploads, users, proxy };
        Ok(Self { shared: Arc::new(shared), tls })
    }

    /// Serves until `shutdown` is ready, then lets requests end for ten seconds.
    ///
    /// # Errors
    /// Connections cannot be accepted any more.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(self.shared.config.limits.connections));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(collect_regularly(Arc::clone(&self.shared), stop.clone()));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = async {
                    let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
                    Ok::<_, io::Error>((slot, listener.accept().await?))
                } => accepted,
            };
            match accepted {
                Ok((slot, (stream, _))) => {
                    let (this, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        this.connection(stream, stop).await;
                        drop(slot);
                    });
                }
                // One connection's trouble, or too many open files: the listener itself stays good.
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        stop.cancel();
        tasks.close();
        let _ = tokio::time::timeout(FAREWELL, tasks.wait()).await;
        Ok(())
    }

    /// Removes what no manifest refers to and what is older than `grace`. Safe while requests are served, also by
    /// another process. Blocks.
    ///
    /// # Errors
    /// Content or names cannot be read; nothing that is needed is removed.
    pub fn collect_garbage(&self, grace: Duration) -> Result<Collected> {
        collect::collect(&self.shared, grace)
    }

    async fn connection(&self, stream: TcpStream, stop: CancellationToken) {
        let _ = stream.set_nodelay(true);
        let Some(Tls(tls)) = &self.tls else { return self.http(stream, stop).await };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, stop).await,
            Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
            Err(_) => tracing::debug!("TLS handshake: it takes too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin, stop: CancellationToken) {
        let service = service_fn(|request: hyper::Request<Incoming>| async {
            let started = Instant::now();
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = api::answer(&self.shared, request).await;
            let (status, elapsed) = (response.status().as_u16(), started.elapsed());
            tracing::info!(%method, path, status, ?elapsed, "request");
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(self.shared.config.limits.head_bytes.max(8192))
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("connection: {}", chain(&error));
        }
    }
}

async fn collect_regularly(shared: Arc<Shared>, stop: CancellationToken) {
    let every = shared.config.collect_every;
    if every.is_zero() {
        return;
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let (shared, grace) = (Arc::clone(&shared), shared.config.grace);
        let collected = tokio::task::spawn_blocking(move || collect::collect(&shared, grace)).await;
        match collected {
            Ok(Ok(collected)) => {
                tracing::info!(collected.blobs, collected.bytes, "garbage collected");
            }
            Ok(Err(error)) => tracing::error!("collect garbage: {}", chain(&error)),
            Err(error) => tracing::error!("collect garbage: {error}"),
        }
    }
}
