//! From configuration to a running engine.

use std::sync::Arc;

use crate::config::Config;
use crate::container::Containers;
use crate::engine::Engine;
use crate::error::Result;
use crate::events::Events;
use crate::image::Images;
use crate::network::Networks;
use crate::system::System;
use crate::volume::Volumes;

/// Opens the stores and adopts what a former engine left.
pub(crate) async fn open(config: Config) -> Result<Arc<Engine>> {
    config.check()?;
    Ok(Arc::new(Engine {
        containers: Containers,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        events: Events::new(),
        system: System,
    }))
}
