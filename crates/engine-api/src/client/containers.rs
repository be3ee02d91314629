//! Containers.

use http::Method;

use super::request::{header_text, segment};
use super::{ByteStream, Client, Error, Hijacked, JsonStream, OutputStream, Result, Upload};
use crate::models::{
    ContainerCreateBody, ContainerCreateResponse, ContainerInspectResponse, ContainerPruneResponse,
    ContainerStatsResponse, ContainerTopResponse, ContainerUpdateBody, ContainerUpdateResponse,
    ContainerWaitResponse, FilesystemChange,
};
use crate::path_stat::{PATH_STAT_HEADER, PathStat};
use crate::query;
use crate::restart::Restarting;
use crate::stream::{MULTIPLEXED_STREAM, RAW_STREAM};
use crate::types::ListedContainer;

/// The path of a container's endpoint.
fn container(id: &str, endpoint: &str) -> String {
    format!("/containers/{}{endpoint}", segment(id))
}

/// A wait that the daemon has begun.
#[derive(Debug)]
pub struct Waiting(ByteStream);

impl Waiting {
    /// Waits for the container.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn exited(self) -> Result<ContainerWaitResponse> {
        let mut lines = JsonStream::new(self.0);
        lines
            .next()
            .await
            .unwrap_or_else(|| Err(Error::stream(std::io::ErrorKind::UnexpectedEof.into())))
    }
}

impl Client {
    /// `GET /containers/json`.
    ///
    /// # Errors
    /// As any call; [`InvalidInput`](super::ErrorKind::InvalidInput) for unknown filters.
    pub async fn list_containers(
        &self,
        query: &query::ListContainers,
    ) -> Result<Vec<ListedContainer>> {
        self.get("/containers/json").query(query).answer().await
    }

    /// `POST /containers/create`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound) when the image is not there, [`Conflict`](super::ErrorKind::Conflict)
    /// when the name is taken, [`InvalidInput`](super::ErrorKind::InvalidInput).
    pub async fn create_container(
        &self,
        query: &query::CreateContainer,
        body: &Restarting<ContainerCreateBody>,
    ) -> Result<ContainerCreateResponse> {
        self.post("/containers/create").query(query).json(body).answer().await
    }

    /// `GET /containers/{id}/json`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn inspect_container(
        &self,
        id: &str,
        size: bool,
    ) -> Result<Restarting<ContainerInspectResponse>> {
        let query = query::InspectContainer { size };
        self.get(container(id, "/json")).query(&query).answer().await
    }

    /// `POST /containers/{id}/start`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`NotModified`](super::ErrorKind::NotModified) when it runs already.
    pub async fn start_container(&self, id: &str, query: &query::StartContainer) -> Result<()> {
        self.post(container(id, "/start")).query(query).done().await
    }

    /// `POST /containers/{id}/stop`: returns when it has stopped.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`NotModified`](super::ErrorKind::NotModified) when it does not run.
    pub async fn stop_container(&self, id: &str, query: &query::StopContainer) -> Result<()> {
        self.post(container(id, "/stop")).query(query).done().await
    }

    /// `POST /containers/{id}/restart`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn restart_container(&self, id: &str, query: &query::StopContainer) -> Result<()> {
        self.post(container(id, "/restart")).query(query).done().await
    }

    /// `POST /containers/{id}/kill`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it does not run.
    pub async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let query = query::KillContainer { signal: signal.map(str::to_owned) };
        self.post(container(id, "/kill")).query(&query).done().await
    }

    /// `POST /containers/{id}/pause`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it cannot be paused.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        self.post(container(id, "/pause")).done().await
    }

    /// `POST /containers/{id}/unpause`.
    ///
    /// # Errors
    /// As for [`pause_container`](Self::pause_container).
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        self.post(container(id, "/unpause")).done().await
    }

    /// `POST /containers/{id}/rename`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when the name is taken.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let query = query::RenameContainer { name: name.to_owned() };
        self.post(container(id, "/rename")).query(&query).done().await
    }

    /// `POST /containers/{id}/update`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`InvalidInput`](super::ErrorKind::InvalidInput).
    pub async fn update_container(
        &self,
        id: &str,
        body: &Restarting<ContainerUpdateBody>,
    ) -> Result<ContainerUpdateResponse> {
        self.post(container(id, "/update")).json(body).answer().await
    }

    /// `POST /containers/{id}/wait`: returns once the daemon watches the container, so that a start that follows
    /// cannot be missed.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn wait_container(&self, id: &str, query: &query::WaitContainer) -> Result<Waiting> {
        self.post(container(id, "/wait")).query(query).bytes().await.map(Waiting)
    }

    /// `DELETE /containers/{id}`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it runs and `force` is
    /// not set.
    pub async fn remove_container(&self, id: &str, query: &query::RemoveContainer) -> Result<()> {
        self.delete(container(id, "")).query(query).done().await
    }

    /// `POST /containers/prune`.
    ///
    /// # Errors
    /// As any call.
    pub async fn prune_containers(&self, query: &query::Prune) -> Result<ContainerPruneResponse> {
        self.post("/containers/prune").query(query).answer().await
    }

    /// `GET /containers/{id}/logs`. `tty` is whether the container has a terminal, in case the daemon does not say.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`InvalidInput`](super::ErrorKind::InvalidInput) when neither stdout
    /// nor stderr is asked for.
    pub async fn container_logs(
        &self,
        id: &str,
        query: &query::ContainerLogs,
        tty: bool,
    ) -> Result<OutputStream> {
        let response = self.get(container(id, "/logs")).query(query).response().await?;
        let framed = match header_text(&response, "content-type") {
            Some(MULTIPLEXED_STREAM) => true,
            Some(RAW_STREAM) if self.version.minor >= 42 => false,
            _ => !tty,
        };
        Ok(OutputStream::new(ByteStream::new(response.into_body()), framed))
    }

    /// `POST /containers/{id}/attach`. `tty` is whether the container has a terminal, in case the daemon does not
    /// say.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it is paused.
    pub async fn attach_container(
        &self,
        id: &str,
        query: &query::AttachContainer,
        tty: bool,
    ) -> Result<Hijacked> {
        self.post(container(id, "/attach")).query(query).hijack(tty).await
    }

    /// `POST /containers/{id}/resize`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it does not run.
    pub async fn resize_container(&self, id: &str, size: &query::Resize) -> Result<()> {
        self.post(container(id, "/resize")).query(size).done().await
    }

    /// `GET /containers/{id}/top`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it does not run.
    pub async fn container_top(
        &self,
        id: &str,
        query: &query::ContainerTop,
    ) -> Result<ContainerTopResponse> {
        self.get(container(id, "/top")).query(query).answer().await
    }

    /// `GET /containers/{id}/stats`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn container_stats(
        &self,
        id: &str,
        query: &query::ContainerStats,
    ) -> Result<JsonStream<ContainerStatsResponse>> {
        self.get(container(id, "/stats")).query(query).lines().await
    }

    /// `GET /containers/{id}/changes`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn container_changes(&self, id: &str) -> Result<Vec<FilesystemChange>> {
        let changes: Option<Vec<_>> = self.get(container(id, "/changes")).answer().await?;
        Ok(changes.unwrap_or_default())
    }

    /// `GET /containers/{id}/export`: its file system as tar.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn export_container(&self, id: &str) -> Result<ByteStream> {
        self.get(container(id, "/export")).bytes().await
    }

    /// `HEAD /containers/{id}/archive`: what a path in the container is.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound) when the container or the path does not exist.
    pub async fn stat_path(&self, id: &str, path: &str) -> Result<PathStat> {
        let query = query::ContainerArchive { path: path.to_owned(), ..Default::default() };
        let call = self.call(Method::HEAD, &container(id, "/archive")).query(&query);
        let what = call.what();
        match call.response().await {
            Ok(response) => path_stat(what, header_text(&response, PATH_STAT_HEADER)),
            // An answer to HEAD has no body, hence no message.
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 404) => {
                self.inspect_container(id, false).await?;
                let message = format!("no such file or directory in container {id}: {path}");
                Err(Error::refused(http::StatusCode::NOT_FOUND, message))
            }
            Err(error) => Err(error),
        }
    }

    /// `GET /containers/{id}/archive`: a path in the container as tar, and what it is.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound) when the container or the path does not exist.
    pub async fn read_archive(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let query = query::ContainerArchive { path: path.to_owned(), ..Default::default() };
        let call = self.get(container(id, "/archive")).query(&query);
        let what = call.what();
        let response = call.response().await?;
        let stat = path_stat(what, header_text(&response, PATH_STAT_HEADER))?;
        Ok((stat, ByteStream::new(response.into_body())))
    }

    /// `PUT /containers/{id}/archive`: extracts a tar into a directory of the container.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound), [`InvalidInput`](super::ErrorKind::InvalidInput) when the path is no
    /// directory, [`Denied`](super::ErrorKind::Denied) when it is read-only.
    pub async fn write_archive(
        &self,
        id: &str,
        query: &query::ContainerArchive,
        archive: Upload,
    ) -> Result<()> {
        let call = self.call(Method::PUT, &container(id, "/archive")).query(query);
        call.upload(archive, "application/x-tar").done().await
    }
}

fn path_stat(what: String, header: Option<&str>) -> Result<PathStat> {
    PathStat::decode(header.unwrap_or_default()).map_err(|error| Error::answer(what, error))
}
