//! The one error of this crate: what was attempted, what kind of failure it was, and the system's own error as source.

use std::{fmt, io};

/// A failed operation.
///
/// `Display` says what was attempted on what; [`std::error::Error::source`] is the system's answer.
pub struct Error {
    kind: ErrorKind,
    attempt: String,
    source: Option<io::Error>,
}

/// What a caller may decide upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing is not there.
    NotFound,
    /// The named thing is there already.
    AlreadyExists,
    /// The request cannot be meant: bad path, bad value, wrong file type.
    InvalidInput,
    /// Something else holds, uses or changes the object; it may work later.
    Conflict,
    /// This kernel or filesystem cannot do it.
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

impl Error {
    /// A failed system call: `attempt` says what was tried on what ("open etc/passwd beneath the root"); the kind
    /// follows from the error number.
    #[must_use]
    pub fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self { kind: ErrorKind::of(&source), attempt: attempt.into(), source: Some(source) }
    }

    /// A failure found by this crate itself, without a system error behind it.
    #[must_use]
    pub fn new(kind: ErrorKind, attempt: impl Into<String>) -> Self {
        Self { kind, attempt: attempt.into(), source: None }
    }

    /// The same failure with other words for what was attempted.
    #[must_use]
    pub fn context(self, attempt: impl Into<String>) -> Self {
        Self { attempt: attempt.into(), ..self }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The error number of the failed system call, where there was one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

impl ErrorKind {
    /// The kind of a system error, by its number.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        use rustix::io::Errno;
        let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else {
            return match error.kind() {
                io::ErrorKind::NotFound => Self::NotFound,
                io::ErrorKind::AlreadyExists => Self::AlreadyExists,
                io::ErrorKind::InvalidInput => Self::InvalidInput,
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Integrity,
                io::ErrorKind::QuotaExceeded
                | io::ErrorKind::StorageFull
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::OutOfMemory => Self::Exhausted,
                io::ErrorKind::PermissionDenied => Self::Denied,
                io::ErrorKind::Unsupported => Self::Unsupported,
                _ => Self::Io,
            };
        };
        match errno {
            Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO => Self::NotFound,
            Errno::EXIST => Self::AlreadyExists,
            Errno::INVAL
            | Errno::NAMETOOLONG
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::BADF
            | Errno::RANGE => Self::InvalidInput,
            Errno::BUSY | Errno::NOTEMPTY | Errno::AGAIN | Errno::TXTBSY | Errno::ADDRINUSE => {
                Self::Conflict
            }
            Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV | Errno::AFNOSUPPORT => Self::Unsupported,
            Errno::PERM | Errno::ACCESS | Errno::ROFS => Self::Denied,
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOSPC
            | Errno::DQUOT
            | Errno::NOMEM
            | Errno::FBIG
            | Errno::TOOBIG => Self::Exhausted,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.attempt)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(formatter, "{}: {source} ({:?})", self.attempt, self.kind),
            None => write!(formatter, "{} ({:?})", self.attempt, self.kind),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
