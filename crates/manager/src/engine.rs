//! The engine's front: its parts, side by side.

use std::sync::Arc;

use crate::config::Config;
use crate::container::Containers;
use crate::daemon;
use crate::error::Result;
use crate::events::Events;
use crate::image::Images;
use crate::network::Networks;
use crate::system::System;
use crate::volume::Volumes;

/// A running engine. Dropping it, or killing its process, leaves the containers running.
#[derive(Debug)]
pub struct Engine {
    /// Containers and the processes in them.
    pub containers: Containers,
    /// Images.
    pub images: Images,
    /// Networks.
    pub networks: Networks,
    /// Volumes.
    pub volumes: Volumes,
    /// What happens, as it happens.
    pub events: Events,
    /// The engine as a whole.
    pub system: System,
}

impl Engine {
    /// Opens the stores, adopts the containers that a former engine left running, and brings kernel state (networks,
    /// rules, ports) in line with the records.
    ///
    /// # Errors
    ///
    /// Another engine uses the same root, a store cannot be read, or the default networks cannot be made.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        daemon::open(config).await
    }

    /// Stops the engine's own tasks. Containers keep running.
    pub async fn close(&self) {
        self.containers.close().await;
    }
}
