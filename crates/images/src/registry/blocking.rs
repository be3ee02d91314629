//! The one way from async code to blocking calls.

use tokio::sync::Semaphore;
use tokio::task;

use crate::{Error, ErrorKind, Result};

/// Blocking calls under way at once, of all clients of the process.
static SLOTS: Semaphore = Semaphore::const_new(64);

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let stopped = |source| Error::caused(ErrorKind::Io, "run a blocking call", source);
    let _slot = SLOTS.acquire().await.map_err(|source| stopped(source.to_string().into()))?;
    let joined = task::spawn_blocking(work).await;
    joined.map_err(|source| stopped(Box::<dyn std::error::Error + Send + Sync>::from(source)))?
}
