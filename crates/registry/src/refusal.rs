//! What a request is answered with when it is refused: the specification's codes.

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// Adds a header; one that cannot be a header is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    pub(crate) fn name_unknown(name: &str) -> Self {
        let message = format!("there is no repository {name}");
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
    }

    pub(crate) fn blob_unknown(digest: impl std::fmt::Display) -> Self {
        let message = format!("the repository does not have blob {digest}");
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
    }

    pub(crate) fn manifest_unknown(version: impl std::fmt::Display) -> Self {
        let message = format!("the repository does not have manifest {version}");
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
    }

    pub(crate) fn upload_unknown(id: &str) -> Self {
        let message = format!("there is no upload {id}; start it again");
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    pub(crate) fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    /// A failure of ours. What failed goes to the log, not to strangers.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!("{}", chain(error));
        let message = "the registry cannot do that now; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
    }

    /// The body.
    pub(crate) fn body(&self) -> Vec<u8> {
        let errors =
            serde_json::json!({ "errors": [{ "code": self.code, "message": self.message }] });
        errors.to_string().into_bytes()
    }
}

impl From<brig_images::Error> for Refusal {
    fn from(error: brig_images::Error) -> Self {
        use brig_images::ErrorKind as Kind;
        match error.kind() {
            Kind::Exhausted => {
                tracing::error!("{}", chain(&error));
                let message = "the registry's disk is full";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", message)
            }
            Kind::Conflict => Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", chain(&error)),
            _ => Self::internal(&error),
        }
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        if error.kind() == crate::ErrorKind::Exhausted {
            tracing::error!("{}", chain(&error));
            let message = "the registry's disk is full";
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", message);
        }
        Self::internal(&error)
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
