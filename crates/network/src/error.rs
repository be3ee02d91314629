//! The one error type of this crate.

use std::{error, fmt, io};

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on which object, and the cause.
///
/// `Display` says what was attempted on what; the cause is in [`source`](error::Error::source).
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    None,
    System(io::Error),
    /// Its text is the message; its source is ours.
    Linux(brig_linux::Error),
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// An object of that name exists already.
    AlreadyExists,
    /// A value is malformed or makes no sense together with others.
    InvalidInput,
    /// A port, address or subnet is in use by something else.
    Conflict,
    /// The kernel or this version cannot do it.
    Unsupported,
    /// Missing privilege.
    Denied,
    /// What the kernel or a peer sent makes no sense.
    Integrity,
    /// No free address, subnet or port is left, or a limit is reached.
    Exhausted,
    /// Anything else that the kernel reported.
    Io,
}

impl Error {
    /// The class of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: Source::None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        let kind = translate(brig_linux::ErrorKind::of(&source));
        Self { kind, message: message.into(), source: Source::System(source) }
    }

    pub(crate) fn errno(message: impl Into<String>, source: rustix::io::Errno) -> Self {
        Self::io(message, source.into())
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.source {
            Source::None => None,
            Source::System(source) => Some(source),
            Source::Linux(error) => error.source(),
        }
    }
}

impl From<brig_linux::Error> for Error {
    fn from(error: brig_linux::Error) -> Self {
        Self {
            kind: translate(error.kind()),
            message: error.to_string(),
            source: Source::Linux(error),
        }
    }
}

fn translate(kind: brig_linux::ErrorKind) -> ErrorKind {
    match kind {
        brig_linux::ErrorKind::NotFound => ErrorKind::NotFound,
        brig_linux::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        brig_linux::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        brig_linux::ErrorKind::Conflict => ErrorKind::Conflict,
        brig_linux::ErrorKind::Unsupported => ErrorKind::Unsupported,
        brig_linux::ErrorKind::Denied => ErrorKind::Denied,
        brig_linux::ErrorKind::Integrity => ErrorKind::Integrity,
        brig_linux::ErrorKind::Exhausted => ErrorKind::Exhausted,
        _ => ErrorKind::Io,
    }
}
