//! The one place where an error becomes an HTTP status and a message.

use axum::response::{IntoResponse, Response};
use brig_engine_api::error::ErrorResponse;
use brig_engine_api::query::QueryError;
use http::StatusCode;

use super::respond::json_response;
use crate::{Error, ErrorKind};

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_built(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not built into Brig yet"))
    }
}

/// The status for a kind of error.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Integrity | ErrorKind::Exhausted | ErrorKind::Io => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(status(error.kind()), error.report())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self::invalid(message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(
                status = self.status.as_u16(),
                message = self.message,
                "request failed"
            );
        }
        json_response(self.status, &ErrorResponse { message: self.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_dockers_status_and_the_whole_chain_as_message() {
        for (kind, expected) in [
            (ErrorKind::NotFound, 404),
            (ErrorKind::AlreadyExists, 409),
            (ErrorKind::Conflict, 409),
            (ErrorKind::InvalidInput, 400),
            (ErrorKind::Unsupported, 501),
            (ErrorKind::Denied, 403),
            (ErrorKind::Integrity, 500),
            (ErrorKind::Exhausted, 500),
            (ErrorKind::Io, 500),
        ] {
            let error = Error::new(kind, "inner").context("outer");
            let failure = Failure::from(error);
            assert_eq!(failure.status.as_u16(), expected, "{kind:?}");
            assert_eq!(failure.message, "outer: inner");
        }
    }
}
