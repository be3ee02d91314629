//! Volumes: kept by the storage library, counted here by the containers that use them.

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};

/// All volumes of the engine.
#[derive(Debug, Clone)]
pub struct Volumes;

impl Volumes {
    /// Makes a volume, or returns the one of that name.
    pub async fn create(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let _ = (request,);
        Err(Error::unsupported("create: not built yet"))
    }

    /// Lists volumes.
    pub async fn list(&self, filters: Filters) -> Result<VolumeListResponse> {
        let _ = (filters,);
        Err(Error::unsupported("list: not built yet"))
    }

    /// One volume.
    pub async fn inspect(&self, volume: &str) -> Result<Volume> {
        let _ = (volume,);
        Err(Error::unsupported("inspect: not built yet"))
    }

    /// Removes a volume that no container uses.
    pub async fn remove(&self, volume: &str, force: bool) -> Result<()> {
        let _ = (volume, force);
        Err(Error::unsupported("remove: not built yet"))
    }

    /// Removes volumes that no container uses.
    pub async fn prune(&self, filters: Filters) -> Result<VolumePruneResponse> {
        let _ = (filters,);
        Err(Error::unsupported("prune: not built yet"))
    }
}
