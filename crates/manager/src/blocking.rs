//! The one way from async code into blocking library calls.
//!
//! At most [`CALLS_MAX`] run at once; the others wait their turn, so a slow disk cannot fill the thread pool.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};

/// Blocking calls that may run at the same time.
const CALLS_MAX: usize = 64;

static PLACES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CALLS_MAX));

/// Runs `call` on a thread where it may block.
pub(crate) async fn run<T, F>(call: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let _place = PLACES.acquire().await.map_err(|source| {
        Error::new(ErrorKind::Io, "wait for a blocking thread").with_source(source)
    })?;
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(source) => {
            Err(Error::new(ErrorKind::Io, "a blocking call was cut off").with_source(source))
        }
    }
}
