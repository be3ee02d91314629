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

mod records;

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use records::{
    Attachment, ContainerRecord, EndpointRecord, HealthRecord, MountKind, MountRecord,
    NetworkRecord,
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

/// The open metadata file.
#[derive(Clone)]
pub(crate) struct Metadata {
    database: Arc<Database>,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").finish_non_exhaustive()
    }
}

impl Metadata {
    /// Opens or creates the file.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let what = format!("open metadata {}", file.display());
        let database = Database::create(file).map_err(|source| match source {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::conflict(format!(
                "{what}: another engine uses this root; stop it or choose another --root"
            )),
            source => failed(&what, source),
        })?;
        let write = database.begin_write().map_err(|source| failed(&what, source))?;
        {
            let mut meta = write.open_table(META).map_err(|source| failed(&what, source))?;
            let found = meta
                .get("schema")
                .map_err(|source| failed(&what, source))?
                .map(|value| value.value());
            match found {
                None => {
                    meta.insert("schema", SCHEMA_VERSION)
                        .map_err(|source| failed(&what, source))?;
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
        Ok(Self { database: Arc::new(database) })
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
        let what = "read the records";
        let read = self.database.begin_read().map_err(|source| failed(what, source))?;
        let table = read.open_table(table).map_err(|source| failed(what, source))?;
        let mut records = Vec::new();
        for entry in table.iter().map_err(|source| failed(what, source))? {
            let (key, value) = entry.map_err(|source| failed(what, source))?;
            match serde_json::from_slice(value.value()) {
                Ok(record) => records.push(record),
                Err(source) => {
                    let what = format!("read the record of {}", key.value());
                    return Err(Error::new(ErrorKind::Integrity, what).with_source(source));
                }
            }
        }
        Ok(records)
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
        let database = Arc::clone(&self.database);
        blocking::run(move || {
            let mut transaction = database.begin_write().map_err(|source| failed(&what, source))?;
            transaction.set_durability(durability).map_err(|source| failed(&what, source))?;
            {
                let mut table =
                    transaction.open_table(table).map_err(|source| failed(&what, source))?;
                table
                    .insert(key.as_str(), bytes.as_slice())
                    .map_err(|source| failed(&what, source))?;
            }
            transaction.commit().map_err(|source| failed(&what, source))
        })
        .await
    }

    async fn remove(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: String,
    ) -> Result<()> {
        let what = format!("remove the record of {key}");
        let database = Arc::clone(&self.database);
        blocking::run(move || {
            let transaction = database.begin_write().map_err(|source| failed(&what, source))?;
            {
                let mut table =
                    transaction.open_table(table).map_err(|source| failed(&what, source))?;
                table.remove(key.as_str()).map_err(|source| failed(&what, source))?;
            }
            transaction.commit().map_err(|source| failed(&what, source))
        })
        .await
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
