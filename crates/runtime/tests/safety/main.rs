//! Known attacks on container runtimes: each succeeds with the protection switched off, and fails with it on.
//!
//! Run by `cargo xtask test`, or by `cargo test -p brig-runtime --features unsafe-for-tests --test safety`. A race lasts
//! [`RACE_SECONDS`], or as long as `BRIG_RACE_SECONDS` says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]
#![expect(clippy::print_stderr, reason = "what is skipped and how much was tried is said")]

#[path = "../containers/support.rs"]
#[expect(dead_code, reason = "shared with the other tests, which use more of it")]
mod support;

mod overwrite;
mod paths;
mod process;
mod race;

use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_runtime::protection::{Protection, without};

/// Switches hold for the whole process, so one attack runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries an attack, which answers whether it succeeded, without its protections and with them.
fn proven(protections: &[Protection], mut attack: impl FnMut() -> bool) {
    assert!(without(protections, &mut attack), "nothing stands against it, and yet it fails");
    assert!(!attack(), "{protections:?} does not stand against it");
}
