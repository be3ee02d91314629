//! The one error of this crate.
//!
//! It reads like a line of strace: what was attempted, on what, the error's name, and what to do about it:
//! `mount "proc" at "/proc": EPERM (…)`. Callers decide by [`Error::kind`].

use std::fmt;
use std::io;

/// A failed operation on a container.
pub struct Error {
    kind: ErrorKind,
    attempt: String,
    advice: Option<&'static str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller may decide upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container, process or file is not there.
    NotFound,
    /// The container is there already.
    AlreadyExists,
    /// The configuration or the request cannot be meant.
    InvalidInput,
    /// The container is not in a state that allows this.
    Conflict,
    /// This runtime or this kernel cannot do it.
    Unsupported,
    /// Not permitted.
    Denied,
    /// Data is not what it must be.
    Integrity,
    /// A limit, the disk, memory or descriptors ran out.
    Exhausted,
    /// Any other failure of the system.
    Io,
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A point at which the robustness tests make the program die or fail; nothing in an ordinary build.
pub(crate) fn failpoint(name: &str) -> Result<()> {
    brig_failpoint::hit(name).map_err(|source| Error::system(format!("pass {name}"), source))
}

impl Error {
    /// A failure found by this crate itself: `attempt` says what was wrong or could not be done.
    #[must_use]
    pub fn new(kind: ErrorKind, attempt: impl Into<String>) -> Self {
        Self { kind, attempt: attempt.into(), advice: None, source: None }
    }

    /// A failed system call; the kind follows from the error number.
    #[must_use]
    pub fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = brig_linux::ErrorKind::of(&source).into();
        Self { kind, attempt: attempt.into(), advice: None, source: Some(Box::new(source)) }
    }

    /// The same failure, with `source` as its cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The same failure, with what the reader can do about it.
    #[must_use]
    pub fn with_advice(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }

    /// A larger attempt that failed because of this one.
    #[must_use]
    pub fn context(self, attempt: impl Into<String>) -> Self {
        let kind = self.kind;
        Self { kind, attempt: attempt.into(), advice: None, source: Some(Box::new(self)) }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The whole chain in one line, as the command line prints it.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.attempt)?;
        match self.advice {
            Some(advice) => write!(formatter, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({:?})", self.chain(), self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<brig_linux::ErrorKind> for ErrorKind {
    fn from(kind: brig_linux::ErrorKind) -> Self {
        match kind {
            brig_linux::ErrorKind::NotFound => Self::NotFound,
            brig_linux::ErrorKind::AlreadyExists => Self::AlreadyExists,
            brig_linux::ErrorKind::InvalidInput => Self::InvalidInput,
            brig_linux::ErrorKind::Conflict => Self::Conflict,
            brig_linux::ErrorKind::Unsupported => Self::Unsupported,
            brig_linux::ErrorKind::Denied => Self::Denied,
            brig_linux::ErrorKind::Integrity => Self::Integrity,
            brig_linux::ErrorKind::Exhausted => Self::Exhausted,
            _ => Self::Io,
        }
    }
}

impl From<brig_linux::Error> for Error {
    fn from(error: brig_linux::Error) -> Self {
        let kind = error.kind().into();
        let attempt = error.to_string();
        if std::error::Error::source(&error).is_none() {
            return Self { kind, attempt, advice: None, source: None };
        }
        Self { kind, attempt, advice: None, source: Some(Box::new(SystemCause(error))) }
    }
}

/// The cause inside an error of the linux crate, whose own words the outer error has taken over.
#[derive(Debug)]
struct SystemCause(brig_linux::Error);

impl fmt::Display for SystemCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::error::Error::source(&self.0) {
            Some(source) => fmt::Display::fmt(source, formatter),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SystemCause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_everything_once() {
        let error = Error::system("mount \"proc\" at \"/proc\"", io::Error::from_raw_os_error(1))
            .with_advice("bind the host's /proc")
            .context("create web");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(
            error.chain(),
            "create web: mount \"proc\" at \"/proc\" (bind the host's /proc): \
             Operation not permitted (os error 1)"
        );
    }

    #[test]
    fn an_error_of_the_linux_crate_keeps_its_cause() {
        let error = Error::from(brig_linux::Error::system("x", io::Error::from_raw_os_error(2)));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.chain(), "x: No such file or directory (os error 2)");
    }
}
