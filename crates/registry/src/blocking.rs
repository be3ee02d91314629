//! The one way from async code to blocking calls.

use tokio::sync::Semaphore;

use crate::refusal::Refusal;

/// Blocking calls under way at once, of all registries of the process.
static SLOTS: Semaphore = Semaphore::const_new(64);

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static, E: Into<Refusal> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal> {
    let _slot = SLOTS.acquire().await.map_err(|error| Refusal::internal(&error))?;
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Refusal::internal(&error))?.map_err(Into::into)
}
