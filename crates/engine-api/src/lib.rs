//! The Docker Engine API: request and response types, stream framing, and a client.
//!
//! This crate is the vocabulary that the server (`brig-manager`) and its clients (`brig`, tests, embedders) share, and
//! holds nothing else of Brig:
//!
//! - [`models`]: the JSON bodies, generated from the API's published description; [`types`]: those that the generated
//!   ones get wrong for the version spoken here.
//! - [`query`]: the query parameters of every endpoint, parsed with Go's leniency and encoded canonically;
//!   [`filters`]: the JSON filter argument in both of its forms.
//! - [`stream`]: the multiplexed stdout and stderr frames and newline-separated JSON, decoded incrementally.
//! - [`progress`], [`registry_auth`], [`path_stat`], [`error`], [`version`]: the remaining wire forms.
//! - `client` (feature `client`): an HTTP/1.1 client over a unix socket or TCP.
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn list() -> Result<(), brig_engine_api::client::Error> {
//! use brig_engine_api::{client::Client, query};
//!
//! let client = Client::connect("unix:///run/brig/brig.sock").await?;
//! let everything = query::ListContainers { all: true, ..Default::default() };
//! for listed in client.list_containers(&everything).await? {
//!     println!("{:?}", listed.container.names);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod filters;
#[doc(hidden)]
pub mod fuzzing;
pub mod path_stat;
pub mod progress;
pub mod query;
pub mod registry_auth;
pub mod restart;
pub mod stream;
pub mod types;
pub mod version;

pub use bollard_stubs::models;
pub use filters::Filters;
pub use version::{API_VERSION, ApiVersion, MIN_API_VERSION};
