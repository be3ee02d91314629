//! What Brig keeps when its parts are killed, refused or flooded: containers, exit codes, logs, and a clean machine.
//!
//! Every test has an engine of its own (see `support::engine`) that checks for leaks when it ends. The long versions,
//! every system call instead of a sample and more rounds, run with `BRIG_TEST_SOAK=1`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot be set up fails; helpers of tests are tests"
)]

mod lab;

mod disk;
mod failpoints;
mod hostile;
mod load;
mod many;
mod supervision;
mod syscalls;

/// Whether the long versions were asked for.
fn soak() -> bool {
    std::env::var_os("BRIG_TEST_SOAK").is_some_and(|value| value != "0")
}
