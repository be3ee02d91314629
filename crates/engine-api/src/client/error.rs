//! What can go wrong in a call.

use std::io;

use http::StatusCode;

use super::Endpoint;
use crate::ApiVersion;

/// A failed call.
///
/// When the daemon refused it, `Display` is the daemon's message as it is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing listens at the endpoint: no socket, or a socket without a daemon.
    NotRunning,
    /// The caller may not open the socket, or the daemon or a registry refused the credentials (401, 403).
    Denied,
    /// The daemon knows no such object (404).
    NotFound,
    /// The object's state or name is in the way (409).
    Conflict,
    /// The object is already in the state asked for (304).
    NotModified,
    /// The daemon, or this client, does not accept the arguments (400).
    InvalidInput,
    /// Not built, or not by a daemon of this version (405, 501).
    Unsupported,
    /// The daemon failed (other statuses of 500 and above), or reported a failure within a stream.
    Failed,
    /// The connection failed, or the daemon's answer is not the Engine API's.
    Io,
}

#[derive(Debug, thiserror::Error)]
enum Repr {
    #[error("{url:?} is not an address of a daemon: expected unix:///path or tcp://host:port")]
    Url { url: String },
    #[error("connect to the daemon at {endpoint}: is it running?")]
    NotRunning { endpoint: String, source: io::Error },
    #[error(
        "connect to the daemon at {endpoint}: this user may not; use sudo or join the socket's group"
    )]
    Denied { endpoint: String, source: io::Error },
    #[error("connect to the daemon at {endpoint}")]
    Connect { endpoint: String, source: io::Error },
    #[error("the daemon at {endpoint} speaks only API version {theirs}, which is too old")]
    TooOld { endpoint: String, theirs: ApiVersion },
    #[error("exchange a request with the daemon")]
    Exchange(#[source] hyper::Error),
    #[error("build the request {what}")]
    Request { what: String, source: http::Error },
    #[error("encode the request {what}")]
    Encode { what: String, source: serde_json::Error },
    #[error("the daemon's answer to {what} is not what the Engine API says")]
    Answer { what: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the daemon did not hand over the connection for {what}, but answered {status}")]
    NotHijacked { what: String, status: StatusCode },
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("{message}")]
    Reported { message: String },
    #[error("the connection to the daemon failed")]
    Stream(#[source] io::Error),
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Repr::Url { .. } | Repr::Request { .. } | Repr::Encode { .. } => {
                ErrorKind::InvalidInput
            }
            Repr::NotRunning { .. } => ErrorKind::NotRunning,
            Repr::Denied { .. } => ErrorKind::Denied,
            Repr::TooOld { .. } => ErrorKind::Unsupported,
            Repr::Connect { .. }
            | Repr::Exchange(_)
            | Repr::Answer { .. }
            | Repr::NotHijacked { .. }
            | Repr::Stream(_) => ErrorKind::Io,
            Repr::Reported { .. } => ErrorKind::Failed,
            Repr::Refused { status, .. } => match status.as_u16() {
                304 => ErrorKind::NotModified,
                400 => ErrorKind::InvalidInput,
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                405 | 501 => ErrorKind::Unsupported,
                409 => ErrorKind::Conflict,
                _ => ErrorKind::Failed,
            },
        }
    }

    /// The status with which the daemon refused the call, if it did.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match &*self.0 {
            Repr::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(super) fn url(url: &str) -> Self {
        Repr::Url { url: url.to_owned() }.into()
    }

    pub(super) fn connect(endpoint: &Endpoint, source: io::Error) -> Self {
        let endpoint = endpoint.to_string();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Repr::NotRunning { endpoint, source }
            }
            io::ErrorKind::PermissionDenied => Repr::Denied { endpoint, source },
            _ => Repr::Connect { endpoint, source },
        }
        .into()
    }

    pub(super) fn too_old(endpoint: &Endpoint, theirs: ApiVersion) -> Self {
        Repr::TooOld { endpoint: endpoint.to_string(), theirs }.into()
    }

    pub(super) fn exchange(source: hyper::Error) -> Self {
        Repr::Exchange(source).into()
    }

    pub(super) fn request(what: String, source: http::Error) -> Self {
        Repr::Request { what, source }.into()
    }

    pub(super) fn encode(what: String, source: serde_json::Error) -> Self {
        Repr::Encode { what, source }.into()
    }

    pub(super) fn answer(
        what: String,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Repr::Answer { what, source: source.into() }.into()
    }

    pub(super) fn not_hijacked(what: String, status: StatusCode) -> Self {
        Repr::NotHijacked { what, status }.into()
    }

    pub(super) fn refused(status: StatusCode, message: String) -> Self {
        Repr::Refused { status, message }.into()
    }

    /// A failure that the daemon reported within a stream.
    pub fn reported(message: impl Into<String>) -> Self {
        Repr::Reported { message: message.into() }.into()
    }

    pub(super) fn stream(source: io::Error) -> Self {
        Repr::Stream(source).into()
    }
}

impl From<Repr> for Error {
    fn from(repr: Repr) -> Self {
        Self(Box::new(repr))
    }
}
