//! Calls about the engine as a whole.

use crate::error::{Error, Result};
use crate::models::{
    AuthConfig, AuthResponse, ContainerSummary, ImageSummary, SystemInfo, SystemVersion, Volume,
};

/// Disk use by kind of object.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all image layers, each counted once.
    pub layers_size_bytes: i64,
    /// All images.
    pub images: Vec<ImageSummary>,
    /// All containers, with sizes.
    pub containers: Vec<ContainerSummary>,
    /// All volumes, with usage data.
    pub volumes: Vec<Volume>,
}

/// The engine as a whole.
#[derive(Debug, Clone)]
pub struct System;

impl System {
    /// What the engine and the machine are, and how many objects there are.
    pub async fn info(&self) -> Result<SystemInfo> {
        Err(Error::unsupported("info: not built yet"))
    }

    /// Versions of the engine, its API and the kernel.
    pub async fn version(&self) -> Result<SystemVersion> {
        Err(Error::unsupported("version: not built yet"))
    }

    /// How much disk the objects take.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        Err(Error::unsupported("disk usage: not built yet"))
    }

    /// Tries a user name and password on a registry.
    pub async fn authenticate(&self, auth: AuthConfig) -> Result<AuthResponse> {
        let _ = (auth,);
        Err(Error::unsupported("authenticate: not built yet"))
    }
}
