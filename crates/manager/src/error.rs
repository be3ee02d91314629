//! The one error of the engine: a kind to decide on, a message that names the object, and the cause beneath it.

use std::error::Error as StdError;
use std::fmt;

/// The result of every engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarsely enough to choose an HTTP status or an exit code by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container, image, network, volume or path does not exist.
    NotFound,
    /// Something of that name exists already.
    AlreadyExists,
    /// The request itself is wrong.
    InvalidInput,
    /// The request is right but the object is in the wrong state, or in use.
    Conflict,
    /// Brig does not build this feature.
    Unsupported,
    /// The kernel or a registry refused permission.
    Denied,
    /// Bytes do not match their digest, or a record cannot be read.
    Integrity,
    /// A limit is reached: addresses, ports, disk space, queue places.
    Exhausted,
    /// The operating system or a peer failed.
    Io,
}

/// An engine error. [`fmt::Display`] gives the outermost message; [`Error::report`] gives the whole chain.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message and those of its causes, joined by `: `, as users should see it.
    pub fn report(&self) -> String {
        chain(self)
    }

    /// An error of this kind; a caller makes one to end a stream that it hands to the engine.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::Exhausted
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).with_source(source)
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error one step further out: keeps the kind, puts `message` before the chain.
    pub(crate) fn context(self, message: impl Into<String>) -> Self {
        Self { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Errors of the libraries keep their kind and their words.
macro_rules! from_library {
    ($library:ident) => {
        impl From<$library::Error> for Error {
            fn from(source: $library::Error) -> Self {
                let kind = match source.kind() {
                    $library::ErrorKind::NotFound => ErrorKind::NotFound,
                    $library::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                    $library::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
                    $library::ErrorKind::Conflict => ErrorKind::Conflict,
                    $library::ErrorKind::Unsupported => ErrorKind::Unsupported,
                    $library::ErrorKind::Denied => ErrorKind::Denied,
                    $library::ErrorKind::Integrity => ErrorKind::Integrity,
                    $library::ErrorKind::Exhausted => ErrorKind::Exhausted,
                    _ => ErrorKind::Io,
                };
                Self { kind, message: chain(&source), source: None }
            }
        }
    };
}

from_library!(brig_images);
from_library!(brig_network);
from_library!(brig_storage);

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Collects the failures of a teardown that must go on past each of them.
#[derive(Default)]
pub(crate) struct Failures(Vec<Error>);

impl Failures {
    /// Keeps the error of `result`, if any, and goes on.
    pub(crate) fn note<T, E: Into<Error>>(
        &mut self,
        result: std::result::Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(error.into());
                None
            }
        }
    }

    /// Nothing failed, or one error that tells all failures.
    pub(crate) fn into_result(mut self, what: &str) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0).context(what)),
            _ => {
                let kind = self.0[0].kind();
                let all: Vec<String> = self.0.iter().map(Error::report).collect();
                Err(Error::new(kind, format!("{what}: {}", all.join("; "))))
            }
        }
    }
}
