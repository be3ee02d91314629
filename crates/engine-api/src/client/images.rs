//! Images.

use http::HeaderName;

use super::request::{Call, segment};
use super::{ByteStream, Client, JsonStream, Result, Upload};
use crate::models::{
    DistributionInspect, ImageDeleteResponseItem, ImageHistoryResponseItem, ImageInspect,
    ImagePruneResponse, ImageSummary,
};
use crate::progress::ProgressMessage;
use crate::query;
use crate::registry_auth::{REGISTRY_AUTH_HEADER, RegistryAuth};
use crate::types::IdResponse;

fn image(name: &str, endpoint: &str) -> String {
    format!("/images/{}{endpoint}", segment(name))
}

fn with_auth<'a>(call: Call<'a>, auth: Option<&RegistryAuth>) -> Call<'a> {
    match auth {
        Some(auth) => call.header(HeaderName::from_static(REGISTRY_AUTH_HEADER), auth.encode()),
        None => call,
    }
}

impl Client {
    /// `GET /images/json`.
    ///
    /// # Errors
    /// As any call; [`InvalidInput`](super::ErrorKind::InvalidInput) for unknown filters.
    pub async fn list_images(&self, query: &query::ListImages) -> Result<Vec<ImageSummary>> {
        self.get("/images/json").query(query).answer().await
    }

    /// `GET /images/{name}/json`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn inspect_image(
        &self,
        name: &str,
        query: &query::InspectImage,
    ) -> Result<ImageInspect> {
        self.get(image(name, "/json")).query(query).answer().await
    }

    /// `GET /images/{name}/history`, newest first.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn image_history(&self, name: &str) -> Result<Vec<ImageHistoryResponseItem>> {
        self.get(image(name, "/history")).answer().await
    }

    /// `POST /images/create`: pulls. A failure after the start is the last message's `error`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound), [`Denied`](super::ErrorKind::Denied), or that the registry cannot be
    /// reached.
    pub async fn pull_image(
        &self,
        query: &query::CreateImage,
        auth: Option<&RegistryAuth>,
    ) -> Result<JsonStream<ProgressMessage>> {
        with_auth(self.post("/images/create").query(query), auth).lines().await
    }

    /// `POST /images/create`: imports what `archive` holds, or what the URL in the query names.
    ///
    /// # Errors
    /// [`InvalidInput`](super::ErrorKind::InvalidInput) for a malformed name or change.
    pub async fn import_image(
        &self,
        query: &query::CreateImage,
        archive: Option<Upload>,
    ) -> Result<JsonStream<ProgressMessage>> {
        let call = self.post("/images/create").query(query);
        match archive {
            Some(archive) => call.upload(archive, "application/x-tar").lines().await,
            None => call.lines().await,
        }
    }

    /// `POST /commit`: makes an image of a container and answers its id.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`InvalidInput`](super::ErrorKind::InvalidInput) for a malformed name
    /// or change.
    pub async fn commit_container(&self, query: &query::CommitContainer) -> Result<String> {
        let made: IdResponse = self.post("/commit").query(query).answer().await?;
        Ok(made.id)
    }

    /// `POST /images/{name}/push`. A failure after the start is the last message's `error`.
    ///
    /// # Errors
    /// As for [`pull_image`](Self::pull_image).
    pub async fn push_image(
        &self,
        name: &str,
        query: &query::PushImage,
        auth: Option<&RegistryAuth>,
    ) -> Result<JsonStream<ProgressMessage>> {
        // Daemons demand the header even without credentials.
        let nobody = RegistryAuth::default();
        let call = self.post(image(name, "/push")).query(query);
        with_auth(call, Some(auth.unwrap_or(&nobody))).lines().await
    }

    /// `POST /images/{name}/tag`.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`InvalidInput`](super::ErrorKind::InvalidInput) for a malformed
    /// name.
    pub async fn tag_image(&self, name: &str, query: &query::TagImage) -> Result<()> {
        self.post(image(name, "/tag")).query(query).done().await
    }

    /// `DELETE /images/{name}`: what was untagged and what was deleted.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound); [`Conflict`](super::ErrorKind::Conflict) when it is in use.
    pub async fn remove_image(
        &self,
        name: &str,
        query: &query::RemoveImage,
    ) -> Result<Vec<ImageDeleteResponseItem>> {
        self.delete(image(name, "")).query(query).answer().await
    }

    /// `GET /images/get`: the images as one docker archive.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound).
    pub async fn save_images(&self, query: &query::SaveImages) -> Result<ByteStream> {
        self.get("/images/get").query(query).bytes().await
    }

    /// `POST /images/load`: takes a docker or OCI archive, compressed or not.
    ///
    /// # Errors
    /// [`InvalidInput`](super::ErrorKind::InvalidInput) when it is neither.
    pub async fn load_images(
        &self,
        query: &query::LoadImages,
        archive: Upload,
    ) -> Result<JsonStream<ProgressMessage>> {
        let call = self.post("/images/load").query(query);
        call.upload(archive, "application/x-tar").lines().await
    }

    /// `POST /images/prune`.
    ///
    /// # Errors
    /// As any call.
    pub async fn prune_images(&self, query: &query::Prune) -> Result<ImagePruneResponse> {
        self.post("/images/prune").query(query).answer().await
    }

    /// `GET /distribution/{name}/json`: what the registry has, without pulling.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound), [`Denied`](super::ErrorKind::Denied).
    pub async fn inspect_distribution(
        &self,
        name: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<DistributionInspect> {
        let path = format!("/distribution/{}/json", segment(name));
        with_auth(self.get(path), auth).answer().await
    }
}
