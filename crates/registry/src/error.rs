//! The crate's one error type: what was attempted on what; the cause is in the chain of sources.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What class of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or file is malformed.
    InvalidInput,
    /// Disk space or another resource has run out.
    Exhausted,
    /// The operating system or the content store reported an error.
    Io,
}

/// An error of this crate.
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    attempt: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn invalid(attempt: impl Into<String>) -> Self {
        let (kind, attempt) = (ErrorKind::InvalidInput, attempt.into());
        Self(Box::new(Repr { kind, attempt, source: None }))
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        attempt: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Repr { kind, attempt: attempt.into(), source: Some(source.into()) }))
    }

    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        let full =
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = if full { ErrorKind::Exhausted } else { ErrorKind::Io };
        Self::caused(kind, format!("{verb} {}", path.display()), source)
    }
}

impl From<brig_images::Error> for Error {
    fn from(error: brig_images::Error) -> Self {
        let kind = match error.kind() {
            brig_images::ErrorKind::Exhausted => ErrorKind::Exhausted,
            brig_images::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Io,
        };
        Self::caused(kind, "use the registry's content", error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.attempt)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("attempt", &self.0.attempt)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
