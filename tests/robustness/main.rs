//! What Brig keeps when its parts are killed, refused or flooded: containers, exit codes, logs, and a clean machine.
//!
//! Every test has an engine of its own (see `support::engine`) that checks for leaks when it ends.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails; helpers of tests are tests"
)]

mod lab;

mod failpoints;
mod supervision;
