//! The body of every failed request.

use serde::{Deserialize, Serialize};

/// `{"message": "…"}`, sent with every status of 400 and above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// What failed, for people.
    pub message: String,
}

impl ErrorResponse {
    /// A response saying `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
