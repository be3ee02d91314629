//! The shim with real containers: everything here starts the program itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod containerd;
mod exec;
mod external;
mod lifecycle;
mod loggers;
mod memory;
mod oracle;
mod streams;
mod support;
