//! Uploads under way: each belongs to a repository, has one writer, and survives a restart.
//!
//! The bytes are an [`Upload`] of the content store; `uploads/<id>` names the repository. The file comes before the name
//! and goes before it, so a name without a file is dead.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use brig_images::{Store, Upload};
use http::StatusCode;
use tokio::sync::OwnedMutexGuard;

use crate::blocking::blocking;
use crate::error::Result;
use crate::refusal::Refusal;
use crate::repository::{list, make_directory, read, remove, write};

/// An upload that nobody writes is closed after this, to be opened again when it goes on.
const IDLE: Duration = Duration::from_secs(300);
/// How long a request waits for the one before it to let go, as after a connection that broke.
const PATIENCE: Duration = Duration::from_secs(15);

/// All uploads of a registry.
#[derive(Debug)]
pub(crate) struct Uploads {
    directory: PathBuf,
    store: Store,
    limit: usize,
    open: Mutex<HashMap<String, Slot>>,
}

#[derive(Debug)]
struct Slot {
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    used: Instant,
}

/// The right to write one upload. `None` inside once it has ended.
pub(crate) type Held = OwnedMutexGuard<Option<Upload>>;

impl Uploads {
    pub(crate) fn open(root: &Path, store: Store, limit: usize) -> Result<Self> {
        let directory = root.join("uploads");
        make_directory(&directory)?;
        Ok(Self { directory, store, limit, open: Mutex::default() })
    }

    /// Starts an upload to a repository; returns its id.
    pub(crate) fn start(&self, repository: &str) -> Result<String, Refusal> {
        if list(&self.directory)?.len() >= self.limit {
            let message = format!("more than {} uploads are under way; end some", self.limit);
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
                .with(http::header::RETRY_AFTER, "60"));
        }
        let id: String =
            rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let upload = self.store.create_upload(&id)?;
        write(&self.directory, &id, repository.as_bytes())?;
        let upload = Arc::new(tokio::sync::Mutex::new(Some(upload)));
        let slot = Slot { upload, used: Instant::now() };
        let mut open = self.slots();
        open.retain(|_, slot| Arc::strong_count(&slot.upload) > 1 || slot.used.elapsed() < IDLE);
        open.insert(id.clone(), slot);
        Ok(id)
    }

    /// How many bytes have come; checks that the upload is the repository's.
    pub(crate) fn size(&self, repository: &str, id: &str) -> Result<u64, Refusal> {
        self.check(repository, id)?;
        self.store.blobs().upload_size(id).ok_or_else(|| Refusal::upload_unknown(id))
    }

    /// Waits for the right to write an upload, and opens it if need be.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        repository: &str,
        id: &str,
    ) -> Result<Held, Refusal> {
        let (this, name, owned) = (Arc::clone(self), repository.to_owned(), id.to_owned());
        blocking(move || this.check(&name, &owned)).await?;
        let upload = {
            let mut open = self.slots();
            let slot = open
                .entry(id.to_owned())
                .or_insert_with(|| Slot { upload: Arc::default(), used: Instant::now() });
            slot.used = Instant::now();
            Arc::clone(&slot.upload)
        };
        let busy = |_| {
            let message = "another request is sending to this upload";
            Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", message)
        };
        let mut held = tokio::time::timeout(PATIENCE, upload.lock_owned()).await.map_err(busy)?;
        if held.is_none() {
            let (store, owned) = (self.store.clone(), id.to_owned());
            let resumed = blocking(move || match store.resume_upload(&owned) {
                Err(error) if error.kind() == brig_images::ErrorKind::NotFound => {
                    Err(Refusal::upload_unknown(&owned))
                }
                other => other.map_err(Refusal::from),
            });
            *held = Some(resumed.await?);
        }
        Ok(held)
    }

    /// Forgets an upload that has ended.
    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        self.slots().remove(id);
        remove(&self.directory, id).map(drop)
    }

    /// Forgets uploads whose bytes are gone.
    pub(crate) fn forget_dead(&self) -> Result<()> {
        for id in list(&self.directory)? {
            if self.store.blobs().upload_size(&id).is_none() {
                self.forget(&id)?;
            }
        }
        Ok(())
    }

    fn check(&self, repository: &str, id: &str) -> Result<(), Refusal> {
        match read(&self.directory.join(id))? {
            Some(owner) if owner == repository => Ok(()),
            _ => Err(Refusal::upload_unknown(id)),
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
