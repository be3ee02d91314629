//! Further processes in a running container.

use super::request::segment;
use super::{Client, Hijacked, Result};
use crate::models::{ExecConfig, ExecInspectResponse, ExecStartConfig};
use crate::query;
use crate::types::IdResponse;

fn exec(id: &str, endpoint: &str) -> String {
    format!("/exec/{}{endpoint}", segment(id))
}

impl Client {
    /// `POST /containers/{id}/exec`: prepares a process and returns its id.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when the container does not
    /// run or is paused.
    pub async fn create_exec(&self, container: &str, config: &ExecConfig) -> Result<String> {
        let path = format!("/containers/{}/exec", segment(container));
        let created: IdResponse = self.post(path).json(config).answer().await?;
        Ok(created.id)
    }

    /// `POST /exec/{id}/start` with the process's streams attached. `config.tty` must be what the exec was created
    /// with.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it was started before.
    pub async fn start_exec(&self, id: &str, config: &ExecStartConfig) -> Result<Hijacked> {
        let tty = config.tty.unwrap_or_default();
        let config = ExecStartConfig { detach: Some(false), ..config.clone() };
        self.post(exec(id, "/start")).json(&config).hijack(tty).await
    }

    /// `POST /exec/{id}/start` without attaching: returns when the process runs.
    ///
    /// # Errors
    /// As for [`start_exec`](Self::start_exec).
    pub async fn start_exec_detached(&self, id: &str, config: &ExecStartConfig) -> Result<()> {
        let config = ExecStartConfig { detach: Some(true), ..config.clone() };
        self.post(exec(id, "/start")).json(&config).done().await
    }

    /// `POST /exec/{id}/resize`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn resize_exec(&self, id: &str, size: &query::Resize) -> Result<()> {
        self.post(exec(id, "/resize")).query(size).done().await
    }

    /// `GET /exec/{id}/json`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse> {
        self.get(exec(id, "/json")).answer().await
    }
}
