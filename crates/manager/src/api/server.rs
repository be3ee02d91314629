//! Listening, connections, and ending gracefully.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::gate::{Gate, Origin};
use super::{App, Ending, router};
use crate::Engine;

/// Connections served at once; further ones wait in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 4096;

/// How long a connection may take to send a request's head, and may stay idle between requests. Longer than the
/// clients' own pools keep idle connections, so that they never find one closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// How long requests may go on after shutdown was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// Pause before accepting again when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to serve.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket; who may open it may do everything.
    Unix(UnixListener),
    /// A TCP port. Nothing is authenticated or encrypted here: for loopback and test networks only.
    Tcp(TcpListener),
}

/// Serves `engine` until `shutdown` completes, then ends gracefully: streams end at once, requests in progress have
/// ten seconds. Containers go on.
pub async fn serve(
    engine: Arc<Engine>,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
) {
    let ending = Ending::default();
    let app = App { engine, ending: ending.clone() };
    serve_router(router::new(app), ending, listeners, shutdown).await;
}

/// Serves `router`, whose handlers share `ending`.
pub(super) async fn serve_router(
    router: Router,
    ending: Ending,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
) {
    let Ending { closing, hijacked } = ending;
    let gate = Arc::new(Gate::new(router));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let acceptors = TaskTracker::new();
    for listener in listeners {
        let acceptor = Acceptor {
            gate: Arc::clone(&gate),
            places: Arc::clone(&places),
            connections: connections.clone(),
            closing: closing.clone(),
        };
        acceptors.spawn(acceptor.run(listener));
    }
    shutdown.await;
    closing.cancel();
    for tasks in [&acceptors, &connections, &hijacked] {
        tasks.close();
    }
    let ended = async {
        acceptors.wait().await;
        connections.wait().await;
        hijacked.wait().await;
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were still running at shutdown");
    }
}

/// One listener's loop.
struct Acceptor {
    gate: Arc<Gate>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl Acceptor {
    async fn run(self, listener: Listener) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.accept(&listener, place) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept(&self, listener: &Listener, place: OwnedSemaphorePermit) -> io::Result<()> {
        match listener {
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                self.start(stream, Origin::Unix, place);
            }
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                self.start(stream, Origin::Tcp, place);
            }
        }
        Ok(())
    }

    fn start<S>(&self, stream: S, origin: Origin, place: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let gate = Arc::clone(&self.gate);
        let closing = self.closing.clone();
        self.connections.spawn(async move {
            let result = connection(stream, origin, gate, closing).await;
            drop(place);
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Serves the requests of one connection.
async fn connection<S>(
    stream: S,
    origin: Origin,
    gate: Arc<Gate>,
    closing: CancellationToken,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, Infallible>(gate.pass(request, origin).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
