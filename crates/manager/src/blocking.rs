//! The one way from async code into blocking library calls.
//!
//! At most [`CALLS_MAX`] run at once; the others wait their turn, so a slow disk cannot fill the thread pool. Calls that
//! read what is still on its way from the network have places of their own ([`StreamPlace`]), so a registry that stalls
//! keeps nothing else waiting.

use std::sync::LazyLock;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind, Result};

/// Blocking calls that may run at the same time.
const CALLS_MAX: usize = 64;
/// Layers that may be unpacked at the same time, of all images.
const STREAMS_MAX: usize = 32;

static CALLS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CALLS_MAX));
static STREAMS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(STREAMS_MAX));

/// Runs `call` on a thread where it may block.
pub(crate) async fn run<T, F>(call: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let _place = CALLS.acquire().await.map_err(closed)?;
    on_a_thread(call).await
}

/// Leave to run one call that may wait for the network. Taken before the call is started, so that calls which wait for
/// each other get their places in the order in which they are needed.
#[derive(Debug)]
pub(crate) struct StreamPlace(SemaphorePermit<'static>);

impl StreamPlace {
    /// Waits for a free place.
    pub(crate) async fn take() -> Result<Self> {
        STREAMS.acquire().await.map(Self).map_err(closed)
    }

    /// Runs `call`. The place is free again when it has ended, even when nobody waits for that any more.
    pub(crate) async fn run<T, F>(self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        on_a_thread(move || {
            let result = call();
            drop(self.0);
            result
        })
        .await
    }
}

async fn on_a_thread<T, F>(call: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(source) => {
            Err(Error::new(ErrorKind::Io, "a blocking call was cut off").with_source(source))
        }
    }
}

fn closed(source: AcquireError) -> Error {
    Error::new(ErrorKind::Io, "wait for a blocking thread").with_source(source)
}
