//! Networks: kept as records, set up by the network library, joined by containers.

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{
    Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, NetworkInspect, NetworkPruneResponse,
};

/// All networks of the engine.
#[derive(Debug, Clone)]
pub struct Networks;

impl Networks {
    /// Makes a network.
    pub async fn create(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        let _ = (request,);
        Err(Error::unsupported("create: not built yet"))
    }

    /// Lists networks.
    pub async fn list(&self, filters: Filters) -> Result<Vec<Network>> {
        let _ = (filters,);
        Err(Error::unsupported("list: not built yet"))
    }

    /// Everything about one network.
    pub async fn inspect(&self, network: &str) -> Result<NetworkInspect> {
        let _ = (network,);
        Err(Error::unsupported("inspect: not built yet"))
    }

    /// Removes a network that no container uses.
    pub async fn remove(&self, network: &str) -> Result<()> {
        let _ = (network,);
        Err(Error::unsupported("remove: not built yet"))
    }

    /// Joins a container to a network.
    pub async fn connect(&self, network: &str, request: NetworkConnectRequest) -> Result<()> {
        let _ = (network, request);
        Err(Error::unsupported("connect: not built yet"))
    }

    /// Takes a container off a network.
    pub async fn disconnect(&self, network: &str, request: NetworkDisconnectRequest) -> Result<()> {
        let _ = (network, request);
        Err(Error::unsupported("disconnect: not built yet"))
    }

    /// Removes networks that no container uses.
    pub async fn prune(&self, filters: Filters) -> Result<NetworkPruneResponse> {
        let _ = (filters,);
        Err(Error::unsupported("prune: not built yet"))
    }
}
