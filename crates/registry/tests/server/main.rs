//! The registry over real connections, request by request.
#![expect(clippy::unwrap_used, reason = "a test may fail this way")]

mod cache;
mod garbage;
mod protocol;
mod support;
