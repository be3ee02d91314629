//! The containerd shim protocol, as a shim and its clients need it: the task API's messages, ttrpc's wire
//! framing, and the few formats of our own that a shim leaves on disk or speaks on its stdio socket.
//!
//! ```text
//! client ──header(10)+Request──▶ shim      <bundle>/shim.sock   ttrpc, containerd.task.v2.Task and v3.Task
//!        ◀─header(10)+Response──
//! client ──{"exec_id":…}\n, stdin──▶ shim  <bundle>/io.sock     attach::AttachRequest, then raw bytes
//!        ◀─{"tty":…}\n, output────
//!                                          <bundle>/exit.json   ExitRecord
//!                                          <bundle>/shim.json   the version of all this, see bundle
//! ```
//!
//! Everything is synchronous and free of a runtime: the shim drives [`ttrpc::Decoder`] from its own loop, an
//! embedder may use the blocking [`Client`], and an asynchronous client needs the messages only. Messages are
//! written by hand with prost's derives, so a build needs no `protoc`; field numbers are those of containerd's
//! `api/runtime/task/v3/shim.proto` (v2 is the same under another package name).
//!
//! Limits: a frame carries at most [`ttrpc::MESSAGE_LENGTH_MAX`] bytes, an attach header at most
//! [`attach::HEADER_LENGTH_MAX`].
#![forbid(unsafe_code)]

pub mod attach;
pub mod bootstrap;
pub mod bundle;
mod client;
mod error;
pub mod events;
mod exit;
pub mod metrics;
pub mod options;
pub mod task;
mod timestamp;
pub mod ttrpc;
pub mod types;

pub use client::Client;
pub use error::{Error, ErrorKind, Result};
pub use exit::{ExitRecord, LastLine, MemoryAtExit, OomVictim, Phases};
pub use timestamp::Timestamp;
