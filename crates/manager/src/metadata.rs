//! The durable records of the engine, in one redb file.
//!
//! ```text
//! metadata.redb
//!   meta        "schema" -> SCHEMA_VERSION (little-endian u64)
//!   containers  container id -> ContainerRecord (JSON)
//!   networks    network id   -> NetworkRecord (JSON)
//! ```
//!
//! Records are written before the objects they own are made, and removed after those are gone. Creation and removal are
//! durable when the call returns; a change of run-time status is written without waiting for the disk, because the shim's
//! exit record and the kernel tell the same after a crash.
//!
//! redb holds an exclusive lock on the file, so a second engine on the same root fails to open it.
//!
//! After a failed write (a full disk) redb serves nothing more until the file is opened again. That happens at the next
//! call, so that an engine recovers once there is space; what was written without waiting for the disk is lost then, as
//! after a crash.

mod records;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use records::{
    Attachment, ContainerRecord, EndpointRecord, HealthRecord, MountKind, MountRecord,
    NetworkRecord, StateRecord,
};

use crate::blocking;
use crate::error::{Error, ErrorKind, Result};

/// Raised with each change of the records that an older engine would misread.
const SCHEMA_VERSION: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");

/// How long the caller needs to be sure of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// On disk before the call returns.
    Durable,
    /// Visible at once, on disk with the next durable write.
    Status,
}

/// Memory for pages of the file, in bytes: the records of some thousand containers.
const CACHE_BYTES: usize = 4 << 20;

/// The open metadata file.
#[derive(Clone)]
pub(crate) struct Metadata {
    inner: Arc<Inner>,
}

struct Inner {
    file: PathBuf,
    /// `None` after a failed write, until the next call opens the file again.
    database: RwLock<Option<Database>>,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").finish_non_exhaustive()
    }
}

impl Metadata {
    /// Opens or creates the file.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let database = open_file(file)?;
        let inner = Inner { file: file.to_owned(), database: RwLock::new(Some(database)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn containers(&self) -> Result<Vec<ContainerRecord>> {
        self.all(CONTAINERS)
    }

    pub(crate) fn networks(&self) -> Result<Vec<NetworkRecord>> {
        self.all(NETWORKS)
    }

    pub(crate) async fn put_container(&self, record: &ContainerRecord, write: Write) -> Result<()> {
        self.put(CONTAINERS, record.id.clone(), record, write).await
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        self.remove(CONTAINERS, id.to_owned()).await
    }

    pub(crate) async fn put_network(&self, record: &NetworkRecord) -> Result<()> {
        self.put(NETWORKS, record.config.id.clone(), record, Write::Durable).await
    }

    pub(crate) async fn remove_network(&self, id: &str) -> Result<()> {
        self.remove(NETWORKS, id.to_owned()).await
    }

    fn all<T: DeserializeOwned>(&self, table: TableDefinition<'_, &str, &[u8]>) -> Result<Vec<T>> {
        let entries = self.inner.with(|database| {
            let read = database.begin_read()?;
            let table = read.open_table(table)?;
            let mut entries = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                entries.push((key.value().to_owned(), value.value().to_owned()));
            }
            Ok(entries)
        });
        let entries = entries.map_err(|error| error.during("read the records"))?;
        let parse = |(key, bytes): (String, Vec<u8>)| {
            serde_json::from_slice(&bytes).map_err(|source| {
                Error::new(ErrorKind::Integrity, format!("read the record of {key}"))
                    .with_source(source)
            })
        };
        entries.into_iter().map(parse).collect()
    }

    async fn put<T: Serialize>(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: String,
        record: &T,
        write: Write,
    ) -> Result<()> {
        let what = format!("write the record of {key}");
        let bytes = serde_json::to_vec(record).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, what.clone()).with_source(source)
        })?;
        let durability = match write {
            Write::Durable => Durability::Immediate,
            Write::Status => Durability::None,
        };
        let inner = Arc::clone(&self.inner);
        blocking::run(move || {
            let written = inner.with(|database| {
                let mut transaction = database.begin_write()?;
                transaction.set_durability(durability)?;
                transaction.open_table(table)?.insert(key.as_str(), bytes.as_slice())?;
                Ok(transaction.commit()?)
            });
            written.map_err(|error| error.during(&what))
        })
        .await
    }

    async fn remove(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: String,
    ) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking::run(move || {
            let removed = inner.with(|database| {
                let transaction = database.begin_write()?;
                transaction.open_table(table)?.remove(key.as_str())?;
                Ok(transaction.commit()?)
            });
            removed.map_err(|error| error.during(&format!("remove the record of {key}")))
        })
        .await
    }
}

fn open_file(file: &Path) -> Result<Database> {
    let what = format!("open metadata {}", file.display());
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(file).map_err(
        |source| match source {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::conflict(format!(
                "{what}: another engine uses this root; stop it or choose another --root"
            )),
            source => failed(&what, source),
        },
    )?;
    let write = database.begin_write().map_err(|source| failed(&what, source))?;
    {
        let mut meta = write.open_table(META).map_err(|source| failed(&what, source))?;
        let found =
            meta.get("schema").map_err(|source| failed(&what, source))?.map(|value| value.value());
        match found {
            None => {
                meta.insert("schema", SCHEMA_VERSION).map_err(|source| failed(&what, source))?;
            }
            Some(version) if version <= SCHEMA_VERSION => {}
            Some(version) => {
                return Err(Error::new(
                    ErrorKind::Integrity,
                    format!(
                        "{what}: its schema is version {version}, this engine knows {SCHEMA_VERSION}; use the newer engine"
                    ),
                ));
            }
        }
        write.open_table(CONTAINERS).map_err(|source| failed(&what, source))?;
        write.open_table(NETWORKS).map_err(|source| failed(&what, source))?;
    }
    write.commit().map_err(|source| failed(&what, source))?;
    Ok(database)
}

impl Inner {
    /// Runs `call` on the database, opening it again if an earlier write failed.
    fn with<T>(&self, call: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Failed> {
        let first = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            database.as_ref().map(&call)
        };
        match first {
            Some(Ok(value)) => return Ok(value),
            // The file is as it was before the call; nothing else is served until it is opened again.
            Some(Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed)) | None => {}
            Some(Err(error)) => {
                if matches!(error, redb::Error::Io(_)) {
                    *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
                }
                return Err(Failed::Call(error));
            }
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the lock on the file is exclusive.
        *database = None;
        let again = database.insert(open_file(&self.file).map_err(Failed::Open)?);
        call(again).map_err(Failed::Call)
    }
}

/// Why a call on the database failed.
enum Failed {
    Open(Error),
    Call(redb::Error),
}

impl Failed {
    fn during(self, what: &str) -> Error {
        match self {
            Self::Open(error) => error.context(what),
            Self::Call(source) => failed(what, source),
        }
    }
}

fn failed(what: &str, source: impl Into<redb::Error>) -> Error {
    match source.into() {
        redb::Error::Io(source) => Error::io(what, source),
        source => Error::new(ErrorKind::Io, what).with_source(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_survive_reopening() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("metadata.redb");
        let record =
            ContainerRecord { id: "c1".into(), name: "web".into(), ..ContainerRecord::default() };
        {
            let metadata = Metadata::open(&file).expect("open");
            metadata.put_container(&record, Write::Durable).await.expect("put");
        }
        let metadata = Metadata::open(&file).expect("open again");
        let found = metadata.containers().expect("read");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), found[0].name.as_str()), ("c1", "web"));
        metadata.remove_container("c1").await.expect("remove");
        assert!(metadata.containers().expect("read").is_empty());
    }

    #[test]
    fn a_second_engine_on_the_same_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("metadata.redb");
        let _first = Metadata::open(&file).expect("open");
        let error = Metadata::open(&file).expect_err("locked");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("metadata.redb");
        {
            let database = Database::create(&file).expect("create");
            let write = database.begin_write().expect("write");
            write
                .open_table(META)
                .expect("table")
                .insert("schema", SCHEMA_VERSION + 1)
                .expect("insert");
            write.commit().expect("commit");
        }
        assert_eq!(Metadata::open(&file).expect_err("newer").kind(), ErrorKind::Integrity);
    }
}
