//! Real containers, made as root from a root filesystem of busybox.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]
#![expect(clippy::print_stderr, reason = "what is skipped is said")]

mod cgroups;
mod conformance;
mod exec;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod network;
mod notify;
mod process;
mod security;
mod support;
mod systemd;
mod terminal;
