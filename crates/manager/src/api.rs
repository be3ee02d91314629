//! The Docker Engine API over HTTP/1.1: the only module that knows HTTP.
//!
//! ```text
//! server    accept ─▶ connection ─▶ gate (host, version prefix, headers, panics) ─▶ router
//! router    one line for each endpoint ─▶ handlers; refused: what is not built, by name
//! handlers  containers exec images networks volumes system: validate, convert, delegate to the engine
//! request   extractors: parameters, JSON bodies, names        respond   JSON, streams, progress
//! hijack    attach and exec: the connection becomes the process's streams
//! failure   the one place where an error becomes a status
//! ```
//!
//! Calls that change something run to their end even when their client goes away; calls that only read or stream are
//! dropped with it.
//!
//! Limits: [`server::MAX_CONNECTIONS`] connections, [`request::MAX_JSON`] bytes of JSON body. Bodies that are streamed
//! (load, archive) have no limit and are never held in memory.

mod containers;
mod detach;
mod exec;
mod failure;
mod gate;
mod hijack;
mod images;
mod legacy;
mod networks;
mod refused;
mod request;
mod respond;
mod router;
mod server;
mod system;
mod volumes;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use server::{Listener, serve};

use crate::Engine;

/// What every handler can reach. Cheap to clone.
#[derive(Clone, Debug)]
struct App {
    engine: Arc<Engine>,
    ending: Ending,
}

/// What knows about the end of the server. Cheap to clone.
#[derive(Clone, Debug, Default)]
struct Ending {
    /// Cancelled when the server is to end: streams that would go on for ever end with it.
    closing: CancellationToken,
    /// Hijacked connections, which no longer belong to the HTTP server.
    hijacked: TaskTracker,
}

#[cfg(test)]
mod tests;
