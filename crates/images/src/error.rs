//! The crate's one error type.
//!
//! Callers branch on [`Error::kind`]; people read `Display`, which says what was attempted on which object and, where
//! there is one, the remedy. The chain of [`source`](std::error::Error::source)s holds the cause and is never repeated.

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
    /// The image, tag, blob or platform does not exist.
    NotFound,
    /// The object exists already.
    AlreadyExists,
    /// A reference, digest, document or archive is malformed or exceeds a limit.
    InvalidInput,
    /// The request contradicts the present state, such as an ambiguous image id.
    Conflict,
    /// Valid, but of a kind that is not supported, such as an unknown media type.
    Unsupported,
    /// The registry refuses the caller: no or wrong credentials, or missing permission.
    Denied,
    /// Bytes do not match their digest or size, or documents contradict each other.
    Integrity,
    /// A resource has run out: disk space, quota, or an expansion limit.
    Exhausted,
    /// The registry cannot be reached or does not answer: no such host, refused, timed out, overloaded.
    Unreachable,
    /// The operating system reported an error.
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

    pub(crate) fn new(kind: ErrorKind, attempt: impl Into<String>) -> Self {
        Self(Box::new(Repr { kind, attempt: attempt.into(), source: None }))
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        attempt: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Repr { kind, attempt: attempt.into(), source: Some(source.into()) }))
    }

    pub(crate) fn invalid(attempt: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, attempt)
    }

    pub(crate) fn integrity(attempt: impl Into<String>) -> Self {
        Self::new(ErrorKind::Integrity, attempt)
    }

    pub(crate) fn not_found(attempt: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, attempt)
    }

    pub(crate) fn unsupported(attempt: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, attempt)
    }

    /// An operating system error while doing `verb` on `path`. A full disk or quota becomes
    /// [`ErrorKind::Exhausted`] with its remedy; an [`Error`] that crossed a `Read` or `Write` is unwrapped.
    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        let source = match Self::recover(source) {
            Ok(error) => return error,
            Err(source) => source,
        };
        let path = path.display();
        if is_full(&source) {
            let attempt = format!("{verb} {path}: free space on that file system and try again");
            return Self::caused(ErrorKind::Exhausted, attempt, source);
        }
        Self::caused(ErrorKind::Io, format!("{verb} {path}"), source)
    }

    /// Takes an [`Error`] out of the [`io::Error`] it travelled in, as through [`LayerReader`](crate::LayerReader).
    ///
    /// # Errors
    /// Gives the `io::Error` back when it does not hold one.
    pub fn recover(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Self>()
    }
}

/// Whether the file system or a quota is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Exhausted => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_exhausted_and_says_what_to_do() {
        let error = Error::io("write", Path::new("/x/y"), io::ErrorKind::StorageFull.into());
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(error.to_string(), "write /x/y: free space on that file system and try again");
    }

    #[test]
    fn an_error_survives_the_trip_through_io() {
        let inner = Error::integrity("check blob sha256:00");
        let error = Error::io("read", Path::new("/x"), io::Error::from(inner));
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(error.to_string(), "check blob sha256:00");
    }
}
