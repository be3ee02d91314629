//! A registry server: the OCI distribution specification 1.1, as Docker's, containerd's and other clients speak it.
//!
//! ```text
//! server   connections, TLS, limits ─▶ api   one request: route ▶ authenticate ▶ endpoint ─▶ Body
//!                                       ├─ repository   names: tags, manifests, blobs, referrers (small files)
//!                                       ├─ upload       sessions that survive a restart
//!                                       ├─ proxy        fetches from another registry what is not here
//!                                       └─ collect      garbage collection while serving
//! <root>/content        the content store of `brig-images`: one copy of each blob for all repositories
//! <root>/repositories   what belongs to which repository; see `repository`
//! <root>/uploads        which repository an upload belongs to
//! ```
//!
//! What holds here:
//! - What is acknowledged is durable: content and names are synced, renamed into place, and their directories synced.
//! - Nothing is served from a repository that was not pushed to it, mounted into it or fetched for it.
//! - A manifest is taken only if everything it refers to is there, so what a tag names is always complete.
//! - Garbage collection never takes what a manifest refers to, what a request is busy with, or what is younger than the
//!   grace.
//! - Every body, header, wait, list and queue has a limit.
//!
//! It needs a tokio runtime with time and I/O; blocking work runs on its blocking threads, bounded.
#![forbid(unsafe_code)]

mod api;
mod blocking;
mod body;
mod collect;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod htpasswd;
mod proxy;
mod refusal;
mod repository;
mod route;
mod server;
mod tls;
mod upload;

pub use collect::Collected;
pub use config::{Config, Limits, Upstream};
pub use error::{Error, ErrorKind, Result};
pub use server::Registry;
