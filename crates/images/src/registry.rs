//! A client of image registries: the OCI distribution specification 1.1 and Docker's registry API v2.
//!
//! ```text
//! Client ── Session (one operation: its credential and tokens) ── Transport (connections, TLS, redirects)
//!    pull: resolve ▶ choose platform ▶ manifest ▶ configuration ▶ layers in parallel ▶ name
//!    push: config and layers in parallel (skip, mount or upload) ▶ manifests ▶ index ▶ tag
//! ```
//!
//! What holds here:
//! - Nothing enters the store but under its verified digest; a name is given last.
//! - Credentials go to the registry they are for, over TLS unless the host is loopback or configured otherwise, and to the
//!   token service it names if that is its own kin. A redirect to another host takes no credentials along.
//! - A broken download continues where it broke, in this or the next process. A blob wanted by several pulls is
//!   downloaded once.
//! - Every answer has a size limit, every wait a time limit.
//!
//! ```no_run
//! use brig_images::registry::{Client, Config, PullOptions};
//! use brig_images::{Reference, Store};
//!
//! # async fn example() -> brig_images::Result<()> {
//! let store = Store::open("/var/lib/example/content")?;
//! let client = Client::new(Config::default());
//! let reference = Reference::parse("nginx")?;
//! let pulled = client.pull(&reference, &PullOptions::default(), &store, &|news| println!("{news:?}")).await?;
//! println!("{} is {}", reference.familiar(), pulled.target.digest);
//! # Ok(())
//! # }
//! ```

mod auth;
mod blob;
mod blocking;
mod challenge;
mod client;
mod config;
mod credentials;
mod fetch;
mod hosts;
mod pace;
mod progress;
mod pull;
mod push;
mod session;
mod tls;
mod transport;

pub use client::Client;
pub use config::{Config, HostConfig, Mirror, Proxy, Retry, Security};
pub use credentials::{Credential, Credentials};
pub use progress::{BlobKind, BlobProgress, BlobState, Observer, Progress};
pub use pull::{PullOptions, Pulled, Remote};
pub use push::{PushOptions, Pushed};

pub(crate) use challenge::parse as parse_challenges;
