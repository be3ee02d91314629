//! The short privileged matrix, executed inside a guest by `cargo xtask test`: what needs cgroup v2 or v1 with every
//! controller, systemd, or a machine of one's own.
//!
//! The modules are the table: `engine` is the whole slice and runs on cgroup v2 with systemd, `limits` runs on cgroup v2
//! and on v1, `runtime` on both without the engine. `cargo xtask test` names for each guest the modules that it runs, so a
//! new test needs nothing but its function. Tests run one after the other and share one engine, installed as its users
//! install it.
#![expect(clippy::unwrap_used, reason = "a test that fails stops")]

mod engine;
mod guest;
mod limits;
mod runtime;
