//! The Brig engine: images, storage, networks and shims joined into containers.
//!
//! [`Engine::open`] takes a [`Config`], opens the stores beneath its root, adopts the containers that outlived the last
//! process, and hands back an engine whose parts ([`Containers`], [`Images`], [`Networks`], [`Volumes`], [`Events`],
//! [`System`]) speak the vocabulary of the Docker Engine API without knowing HTTP. The server in `api` is one caller,
//! a program that embeds this crate is another.
//!
//! ```no_run
//! # async fn run() -> Result<(), brig_manager::Error> {
//! use brig_manager::{Config, CreateContainer, Engine};
//! let engine = Engine::open(Config::new("/var/lib/brig", "/run/brig")).await?;
//! let mut request = CreateContainer::default();
//! request.body.image = Some("busybox".into());
//! let created = engine.containers.create(request).await?;
//! engine.containers.start(&created.id).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod api;
mod blocking;
mod check;
mod config;
mod container;
mod daemon;
mod disk;
mod engine;
mod error;
mod events;
mod failpoint;
mod filters;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod metadata;
mod name;
mod network;
mod shim_client;
mod stream;
mod system;
mod volume;

pub use api::{Listener, serve};
pub use brig_engine_api::models;
pub use check::{CheckNews, CheckReport, Finding};
pub use config::{Config, LogDefaults, RuntimeProgram, Ulimit};
pub use container::{
    ArchivePut, AttachRequest, CommitRequest, Containers, CreateContainer, ExecStart, ExecStarted,
    ListContainers, LogsRequest, Outcome, PathStat, RemoveOptions, StatsRequest, StopOptions,
    TerminalSize, WaitCondition, WaitFuture,
};
pub use disk::DiskEntry;
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use events::{EventStream, Events, EventsRequest};
pub use filters::Filters;
pub use image::{
    Images, ImportRequest, ImportSource, ListImages, PullRequest, PushRequest, RegistryAuth,
    RemoveImage,
};
pub use network::Networks;
pub use stream::{AttachStream, ByteStream, LogStream, Progress, ProgressStream, StatsStream};
pub use system::{CheckStream, DiskUsage, System};
pub use volume::Volumes;
