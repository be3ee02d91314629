//! The daemon itself.

use http::Method;

use super::request::header_text;
use super::{Client, JsonStream, Result};
use crate::models::{AuthConfig, AuthResponse, EventMessage, SystemInfo, SystemVersion};
use crate::progress::ProgressMessage;
use crate::query;
use crate::types::{DiskUsage, DiskUsageEntry, Ping, SystemCheck};

impl Client {
    /// Asks whether the daemon is there, and what it speaks.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub async fn ping(&self) -> Result<Ping> {
        let response = self.call(Method::HEAD, "/_ping").response().await?;
        let text = |name| header_text(&response, name);
        Ok(Ping {
            api_version: text("api-version").and_then(|version| version.parse().ok()),
            os_type: text("ostype").map(str::to_owned),
            server: text("server").map(str::to_owned),
        })
    }

    /// `GET /version`.
    ///
    /// # Errors
    /// As any call.
    pub async fn server_version(&self) -> Result<SystemVersion> {
        self.get("/version").answer().await
    }

    /// `GET /info`.
    ///
    /// # Errors
    /// As any call.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.get("/info").answer().await
    }

    /// `GET /system/df`.
    ///
    /// # Errors
    /// As any call.
    pub async fn disk_usage(&self, query: &query::SystemDiskUsage) -> Result<DiskUsage> {
        self.get("/system/df").query(query).answer().await
    }

    /// `GET /system/df/explain`: who holds each byte. Only Brig has it.
    ///
    /// # Errors
    /// As any call.
    pub async fn explain_disk_usage(&self) -> Result<Vec<DiskUsageEntry>> {
        self.get("/system/df/explain").answer().await
    }

    /// `GET /system/check`, or `POST` with `repair`: compares the engine's records with what exists. Only Brig has it.
    ///
    /// # Errors
    /// As any call.
    pub async fn system_check(&self, repair: bool) -> Result<SystemCheck> {
        let call = if repair { self.post("/system/check") } else { self.get("/system/check") };
        call.answer().await
    }

    /// The same with `content=1`: also hashes the content of all images again and, with `repair`, fetches from its registry
    /// what is damaged. Lines of progress; the last one has a [`SystemCheck`] in its `aux`.
    ///
    /// # Errors
    /// As any call.
    pub async fn system_check_content(&self, repair: bool) -> Result<JsonStream<ProgressMessage>> {
        let call = if repair { self.post("/system/check") } else { self.get("/system/check") };
        call.query(&query::SystemCheck { content: true }).lines().await
    }

    /// `GET /events`: until `until`, or for ever.
    ///
    /// # Errors
    /// As any call; [`InvalidInput`](super::ErrorKind::InvalidInput) for unknown filters.
    pub async fn events(&self, query: &query::Events) -> Result<JsonStream<EventMessage>> {
        self.get("/events").query(query).lines().await
    }

    /// `POST /auth`: has the daemon check credentials with their registry.
    ///
    /// # Errors
    /// [`Denied`](super::ErrorKind::Denied) when the registry refuses them.
    pub async fn check_auth(&self, credentials: &AuthConfig) -> Result<AuthResponse> {
        self.post("/auth").json(credentials).answer().await
    }
}
