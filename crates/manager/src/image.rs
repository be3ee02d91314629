//! Images: pulled, loaded and listed through the content store, unpacked into snapshots.

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{
    ImageDeleteResponseItem, ImageHistoryResponseItem, ImageInspect, ImagePruneResponse,
    ImageSummary,
};
use crate::stream::{ByteStream, ProgressStream};

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// The image, with tag or digest; `latest` when it has neither.
    pub reference: String,
    /// `os/arch[/variant]`; this machine's when absent.
    pub platform: Option<String>,
    /// Credentials of this call.
    pub auth: Option<RegistryAuth>,
    /// All tags of the repository.
    pub all_tags: bool,
}

/// What to push.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// The image, with registry and tag.
    pub reference: String,
    /// Credentials of this call.
    pub auth: Option<RegistryAuth>,
}

/// Credentials for one registry. Not shown by `Debug`.
#[derive(Clone, Default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token, instead of a password.
    pub identity_token: String,
    /// An access token, used as it is.
    pub registry_token: String,
    /// The registry they are for.
    pub server_address: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// What a list call wants.
#[derive(Debug, Clone, Default)]
pub struct ListImages {
    /// Also intermediate images; there are none so far.
    pub all: bool,
    /// Filters.
    pub filters: Filters,
    /// Also the size that images share.
    pub shared_size: bool,
}

/// How an image is to be removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveImage {
    /// Also when stopped containers use it or it has several names.
    pub force: bool,
    /// Keep untagged parents.
    pub no_prune: bool,
}

/// All images of the engine.
#[derive(Debug, Clone)]
pub struct Images;

impl Images {
    /// Fetches an image from its registry and unpacks it.
    pub async fn pull(&self, request: PullRequest) -> Result<ProgressStream> {
        let _ = (request,);
        Err(Error::unsupported("pull: not built yet"))
    }

    /// Sends an image to its registry.
    pub async fn push(&self, request: PushRequest) -> Result<ProgressStream> {
        let _ = (request,);
        Err(Error::unsupported("push: not built yet"))
    }

    /// Reads a docker or OCI archive.
    pub async fn load(&self, archive: ByteStream) -> Result<ProgressStream> {
        let _ = (archive,);
        Err(Error::unsupported("load: not built yet"))
    }

    /// Writes images as an archive that `load` and docker read.
    pub async fn save(&self, names: Vec<String>) -> Result<ByteStream> {
        let _ = (names,);
        Err(Error::unsupported("save: not built yet"))
    }

    /// Lists images, newest first.
    pub async fn list(&self, request: ListImages) -> Result<Vec<ImageSummary>> {
        let _ = (request,);
        Err(Error::unsupported("list: not built yet"))
    }

    /// Everything about one image.
    pub async fn inspect(&self, image: &str) -> Result<ImageInspect> {
        let _ = (image,);
        Err(Error::unsupported("inspect: not built yet"))
    }

    /// How it was made, newest step first.
    pub async fn history(&self, image: &str) -> Result<Vec<ImageHistoryResponseItem>> {
        let _ = (image,);
        Err(Error::unsupported("history: not built yet"))
    }

    /// Gives it another name.
    pub async fn tag(&self, image: &str, repository: &str, tag: Option<&str>) -> Result<()> {
        let _ = (image, repository, tag);
        Err(Error::unsupported("tag: not built yet"))
    }

    /// Removes a name, and the image with its last one.
    pub async fn remove(
        &self,
        image: &str,
        options: RemoveImage,
    ) -> Result<Vec<ImageDeleteResponseItem>> {
        let _ = (image, options);
        Err(Error::unsupported("remove: not built yet"))
    }

    /// Removes images that nothing uses.
    pub async fn prune(&self, filters: Filters) -> Result<ImagePruneResponse> {
        let _ = (filters,);
        Err(Error::unsupported("prune: not built yet"))
    }
}
