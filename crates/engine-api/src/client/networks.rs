//! Networks.

use super::request::segment;
use super::{Client, Result};
use crate::models::{
    Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, NetworkInspect, NetworkPruneResponse,
};
use crate::query;

fn network(id: &str, endpoint: &str) -> String {
    format!("/networks/{}{endpoint}", segment(id))
}

impl Client {
    /// `GET /networks`.
    ///
    /// # Errors
    /// As any call; [`InvalidInput`](super::ErrorKind::InvalidInput) for unknown filters.
    pub async fn list_networks(&self, query: &query::ListNetworks) -> Result<Vec<Network>> {
        self.get("/networks").query(query).answer().await
    }

    /// `GET /networks/{id}`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn inspect_network(
        &self,
        id: &str,
        query: &query::InspectNetwork,
    ) -> Result<NetworkInspect> {
        self.get(network(id, "")).query(query).answer().await
    }

    /// `POST /networks/create`.
    ///
    /// # Errors
    /// [`Conflict`](super::ErrorKind::Conflict) when the name is taken, [`InvalidInput`](super::ErrorKind::InvalidInput).
    pub async fn create_network(
        &self,
        body: &NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse> {
        self.post("/networks/create").json(body).answer().await
    }

    /// `POST /networks/{id}/connect`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Denied`](super::ErrorKind::Denied) when it is not possible for
    /// this network or container.
    pub async fn connect_network(&self, id: &str, body: &NetworkConnectRequest) -> Result<()> {
        self.post(network(id, "/connect")).json(body).done().await
    }

    /// `POST /networks/{id}/disconnect`.
    ///
    /// # Errors
    /// As for [`connect_network`](Self::connect_network).
    pub async fn disconnect_network(
        &self,
        id: &str,
        body: &NetworkDisconnectRequest,
    ) -> Result<()> {
        self.post(network(id, "/disconnect")).json(body).done().await
    }

    /// `DELETE /networks/{id}`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Denied`](super::ErrorKind::Denied) when it is in use or predefined.
    pub async fn remove_network(&self, id: &str) -> Result<()> {
        self.delete(network(id, "")).done().await
    }

    /// `POST /networks/prune`.
    ///
    /// # Errors
    /// As any call.
    pub async fn prune_networks(&self, query: &query::Prune) -> Result<NetworkPruneResponse> {
        self.post("/networks/prune").query(query).answer().await
    }
}
