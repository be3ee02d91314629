//! The registry client with real peers and with misbehaving ones.
#![expect(clippy::unwrap_used, reason = "a test may fail this way")]

mod faults;
mod hosts;
mod peers;
mod support;
mod tokens;
