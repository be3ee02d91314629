//! The short privileged matrix, executed inside a guest by `cargo xtask test`: what needs cgroup v2 or v1 with every
//! controller, systemd, or a machine of one's own.
//!
//! `xtask/src/tests/guests.rs` names for each guest the modules that it runs, so a new test needs nothing but its function.
//! Tests run one after the other and share one engine, installed as its users install it.
#![expect(clippy::unwrap_used, reason = "a test that fails stops")]

mod bundle;
mod engine;
mod guest;
mod limits;
mod rootless;
mod runtime;
mod systemd;
