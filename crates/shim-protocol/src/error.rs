//! The crate's one error type.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::ttrpc::Code;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing went wrong, for callers that decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The caller or the peer sent something malformed.
    InvalidInput,
    /// The object is in a state that does not permit the request.
    Conflict,
    /// The peer does not know the method, or the feature is not there.
    Unsupported,
    /// The peer or the kernel denied it.
    Denied,
    /// A limit was reached: size, number, memory.
    Exhausted,
    /// Bytes are not what they claim to be.
    Integrity,
    /// Reading, writing or connecting failed, or the peer failed inside.
    Io,
}

/// An error of this crate; see [`Error::kind`].
#[derive(Debug)]
pub struct Error(Box<Cause>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("connect to shim socket {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("send ttrpc request {method}")]
    Send { method: String, source: io::Error },
    #[error("receive ttrpc response to {method}")]
    Receive { method: String, source: io::Error },
    #[error("the shim closed the connection before it answered {method}")]
    Closed { method: String },
    #[error("{method}: {message}")]
    Status { method: String, code: Code, message: String },
    #[error("ttrpc frame of {length} bytes is over the limit of {limit}")]
    FrameTooLong { length: usize, limit: usize },
    #[error("ttrpc frame has the unknown message type {kind}")]
    FrameKind { kind: u8 },
    #[error("decode protobuf message {message}")]
    Decode { message: &'static str, source: prost::DecodeError },
    #[error("value carries type {found:?} where {expected:?} is needed")]
    TypeUrl { expected: &'static str, found: String },
    #[error("attach header is longer than {limit} bytes")]
    AttachHeaderTooLong { limit: usize },
    #[error("parse attach header")]
    AttachHeader { source: serde_json::Error },
    #[error("attach refused: {message}")]
    AttachRefused { message: String },
    #[error("exchange attach header")]
    AttachExchange { source: io::Error },
    #[error("parse exit record {}", path.display())]
    ExitRecord { path: PathBuf, source: serde_json::Error },
    #[error("read exit record {}", path.display())]
    ExitRecordRead { path: PathBuf, source: io::Error },
    #[error("write exit record {}", path.display())]
    ExitRecordWrite { path: PathBuf, source: io::Error },
    #[error("parse bootstrap answer {text:?}")]
    Bootstrap { text: String },
    #[error("parse time {text:?}: not RFC 3339")]
    Time { text: String },
}

impl Error {
    /// The sort of failure.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Cause::Connect { source, .. } => io_kind(source),
            Cause::ExitRecordRead { source, .. } => io_kind(source),
            Cause::ExitRecordWrite { source, .. } => io_kind(source),
            Cause::Status { code, .. } => code_kind(*code),
            Cause::FrameTooLong { .. } | Cause::AttachHeaderTooLong { .. } => ErrorKind::Exhausted,
            Cause::FrameKind { .. }
            | Cause::Decode { .. }
            | Cause::TypeUrl { .. }
            | Cause::AttachHeader { .. }
            | Cause::Bootstrap { .. }
            | Cause::Time { .. } => ErrorKind::InvalidInput,
            Cause::AttachRefused { .. } => ErrorKind::Conflict,
            Cause::ExitRecord { .. } => ErrorKind::Integrity,
            Cause::Send { .. }
            | Cause::Receive { .. }
            | Cause::Closed { .. }
            | Cause::AttachExchange { .. } => ErrorKind::Io,
        }
    }

    /// The code that the shim answered with, when the error is its answer.
    pub fn code(&self) -> Option<Code> {
        match &*self.0 {
            Cause::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self(Box::new(cause))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        // A refused connection is a socket that a dead shim left: as good as none.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Io,
    }
}

fn code_kind(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidInput,
        Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::DataLoss => ErrorKind::Integrity,
        _ => ErrorKind::Io,
    }
}
