//! Volumes.

use super::request::segment;
use super::{ByteStream, Client, Result, Upload};
use crate::models::{Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse};
use crate::query;

fn volume(name: &str) -> String {
    format!("/volumes/{}", segment(name))
}

impl Client {
    /// `GET /volumes`.
    ///
    /// # Errors
    /// As any call; [`InvalidInput`](super::ErrorKind::InvalidInput) for unknown filters.
    pub async fn list_volumes(&self, query: &query::ListVolumes) -> Result<VolumeListResponse> {
        self.get("/volumes").query(query).answer().await
    }

    /// `GET /volumes/{name}`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.get(volume(name)).answer().await
    }

    /// `POST /volumes/create`: returns the one that exists when it has the same options.
    ///
    /// # Errors
    /// [`Conflict`](super::ErrorKind::Conflict), [`InvalidInput`](super::ErrorKind::InvalidInput).
    pub async fn create_volume(&self, body: &VolumeCreateRequest) -> Result<Volume> {
        self.post("/volumes/create").json(body).answer().await
    }

    /// `GET /volumes/{name}/export`: the files of a volume as a tar archive. Only Brig has it.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn export_volume(
        &self,
        name: &str,
        query: &query::ExportVolume,
    ) -> Result<ByteStream> {
        self.get(volume(name) + "/export").query(query).bytes().await
    }

    /// `POST /volumes/{name}/import`: extracts a tar archive, plain or compressed by gzip or zstd, over what the volume
    /// has. Only Brig has it.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`InvalidInput`](super::ErrorKind::InvalidInput) for a bad archive.
    pub async fn import_volume(&self, name: &str, archive: Upload) -> Result<()> {
        self.post(volume(name) + "/import").upload(archive, "application/x-tar").done().await
    }

    /// `DELETE /volumes/{name}`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it is in use.
    pub async fn remove_volume(&self, name: &str, query: &query::RemoveVolume) -> Result<()> {
        self.delete(volume(name)).query(query).done().await
    }

    /// `POST /volumes/prune`.
    ///
    /// # Errors
    /// As any call.
    pub async fn prune_volumes(&self, query: &query::Prune) -> Result<VolumePruneResponse> {
        self.post("/volumes/prune").query(query).answer().await
    }
}
