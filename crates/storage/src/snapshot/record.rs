//! What is written about a snapshot, and its key.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Usage;
use crate::error::{Error, ErrorKind, Result};

/// The name of a snapshot, chosen by the caller: an OCI chain ID for a layer, a container's ID for a container. It is
/// never part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotKey(String);

impl SnapshotKey {
    /// Takes 1 to 256 printable ASCII characters without spaces.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > 256 || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("snapshot key {text:?} is not 1 to 256 printable characters"),
            ));
        }
        Ok(Self(text))
    }

    /// The key as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for SnapshotKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<SnapshotKey> for String {
    fn from(key: SnapshotKey) -> Self {
        key.0
    }
}

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Written once, then read-only; may be a parent.
    Layer,
    /// Writable, never a parent.
    Container,
}

/// How a layer's files are kept. All that depends on it is behind [`super::Snapshots`]: layers of both forms stack in any
/// order, and containers' own layers are always directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// A directory.
    #[default]
    Directory,
    /// One EROFS image, mounted while the storage is open. Needs Linux 6.12.
    Erofs,
}

/// `record.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Raised when an older Brig could misread the files.
    version: u32,
    pub(crate) key: SnapshotKey,
    pub(crate) parent: Option<SnapshotKey>,
    pub(crate) kind: SnapshotKind,
    pub(crate) format: Format,
    pub(crate) usage: Option<Usage>,
}

impl Record {
    pub(crate) fn new(
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        kind: SnapshotKind,
        format: Format,
    ) -> Self {
        Self { version: 1, key: key.clone(), parent: parent.cloned(), kind, format, usage: None }
    }
}
