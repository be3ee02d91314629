//! The one error of this crate.

use std::{fmt, io};

pub use brig_linux::ErrorKind;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A failed operation on storage. `Display` says what was attempted on what; `source()` says why it failed.
pub struct Error {
    kind: ErrorKind,
    attempt: String,
    source: Option<Source>,
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, attempt: impl Into<String>) -> Self {
        Self { kind, attempt: attempt.into(), source: None }
    }

    pub(crate) fn integrity(attempt: impl Into<String>) -> Self {
        Self::new(ErrorKind::Integrity, attempt)
    }

    /// What a caller may decide upon.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Says why.
    pub(crate) fn caused_by(self, source: impl Into<Source>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Adds what was being done around this error.
    pub(crate) fn within(self, attempt: impl Into<String>) -> Self {
        Self { kind: self.kind, attempt: attempt.into(), source: Some(Box::new(self)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.attempt)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({:?})", self.attempt, self.kind)?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Says what was attempted when a lower layer fails.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error {
            kind: ErrorKind::of(&source),
            attempt: attempt(),
            source: Some(Box::new(source)),
        })
    }
}

impl<T> Attempt<T> for rustix::io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).attempt(attempt)
    }
}

impl<T> Attempt<T> for brig_linux::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error {
            kind: source.kind(),
            attempt: attempt(),
            source: Some(Box::new(source)),
        })
    }
}

impl<T> Attempt<T> for Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.within(attempt()))
    }
}
