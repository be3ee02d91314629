//! Images: pulled, loaded and listed through the content store, unpacked into snapshots.
//!
//! ```text
//! content/   (images library)   manifests, configurations, compressed layers; names in index.json
//! storage/   (storage library)  one snapshot for each layer, keyed by chain id, parent first
//! ```
//!
//! A name is given only when all content of the image is there. Layers are unpacked after that, each becoming visible at
//! once or not at all; one that is missing (a crash, a failed unpack) is made again when a container needs it.

mod arrival;
mod change;
mod check;
mod compose;
mod describe;
mod read_ahead;
mod remove;
mod sweeper;
mod transfer;
mod unpack;

pub(crate) use change::apply as apply_changes;
pub(crate) use check::{Follow, part_of};
pub(crate) use compose::{Commit, named};
pub(crate) use describe::image_config;

pub use compose::{ImportRequest, ImportSource};

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use brig_images::registry::{self, Client, PushOptions};
use brig_images::{
    Descriptor, Digest, Image, Platform, PlatformChoice, Reference, Resolved, Store, archive,
};
use brig_storage::{Format, Storage};
use sweeper::Sweeper;
use tokio_util::task::TaskTracker;

use crate::blocking;
use crate::config::Config;
use crate::container::Table;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filters::Filters;
use crate::models::{
    AuthConfig, AuthResponse, EventMessageTypeEnum, ImageDeleteResponseItem,
    ImageHistoryResponseItem, ImageInspect, ImagePruneResponse, ImageSummary,
};
use crate::stream::{self, ByteStream, ProgressStream};

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
    /// Only this platform (`os/arch[/variant]`) of an image that is here for several.
    pub platform: Option<String>,
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
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    client: Client,
    storage: Arc<Storage>,
    events: Events,
    table: Table,
    tasks: TaskTracker,
    /// One lock for each layer that is being unpacked, so that it is unpacked once.
    unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// How many pulls are bringing each layer, by chain id.
    arriving: Mutex<HashMap<String, usize>>,
    sweeper: Sweeper,
    /// Held shared while images are being used for a new container, exclusively while layers are removed.
    removal: tokio::sync::RwLock<()>,
}

/// An image with all its names.
#[derive(Debug, Clone)]
struct Named {
    target: Descriptor,
    references: Vec<Reference>,
    image: Image,
}

impl Images {
    /// Opens the content store.
    pub(crate) fn open(
        config: &Config,
        storage: Arc<Storage>,
        events: Events,
        table: Table,
        tasks: TaskTracker,
    ) -> Result<Self> {
        let store = Store::open(config.root.join("content"))?;
        let client = Client::new(registry_config(config)?);
        let arriving = Mutex::default();
        let (unpacking, removal) = (Mutex::default(), tokio::sync::RwLock::default());
        let sweeper = Sweeper::default();
        Ok(Self(Arc::new(Inner {
            store,
            client,
            storage,
            events,
            table,
            tasks,
            unpacking,
            arriving,
            sweeper,
            removal,
        })))
    }

    /// Runs a blocking call.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        blocking::run(move || call(&this)).await
    }

    /// What docker calls the storage driver, after the form of new layers.
    pub(crate) fn driver(&self) -> &'static str {
        match self.0.storage.snapshots().format() {
            Format::Erofs => "erofs",
            _ => "overlayfs",
        }
    }

    fn publish(&self, action: &str, id: &str, name: &str) {
        let attributes = HashMap::from([("name".to_owned(), name.to_owned())]);
        self.0.events.publish(EventMessageTypeEnum::IMAGE, action, id, attributes);
    }

    /// Finds an image by name, id or prefix, for this machine or the platform asked for.
    pub(crate) fn find(&self, text: &str, platform: Option<&str>) -> Result<(Resolved, Image)> {
        let unknown = || Error::not_found(format!("No such image: {}", displayed(text)));
        let resolved = self.0.store.resolve(text).map_err(|source| match source.kind() {
            brig_images::ErrorKind::NotFound => unknown(),
            _ => Error::from(source),
        })?;
        let image = match platform.filter(|text| !text.is_empty()) {
            Some(platform) => {
                let wanted = Platform::parse(platform)?;
                let image = self.0.store.image(resolved.selected(), &wanted)?;
                if wanted.rank(&image.platform).is_none() {
                    return Err(Error::not_found(format!(
                        "image with reference {} was found but does not provide the specified platform ({wanted}), only {}",
                        displayed(text),
                        image.platform
                    )));
                }
                image
            }
            None => self.image_of(resolved.selected())?,
        };
        Ok((resolved, image))
    }

    /// The image for this machine, else the first that is there.
    fn image_of(&self, target: &Descriptor) -> Result<Image> {
        let store = &self.0.store;
        let error = match store.image(target, &Platform::host()) {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        for manifest in store.manifests(target)? {
            let platform = manifest.platform.clone().unwrap_or_else(Platform::host);
            if let Ok(image) = store.image(&manifest, &platform) {
                return Ok(image);
            }
        }
        Err(error.into())
    }

    /// The image of a manifest that is in the store, with a name or without.
    fn image_by_manifest(&self, digest: &str) -> Result<Image> {
        let digest = Digest::parse(digest)?;
        let size = self.0.store.blobs().size(&digest).ok_or_else(|| {
            Error::not_found(format!("image {digest} is not in the store; pull it again"))
        })?;
        // What it is, it says itself.
        let target = Descriptor::new("application/json", digest, size);
        self.image_of(&target)
    }

    /// All images, each once.
    fn all(&self) -> Result<Vec<Named>> {
        let mut by_target: BTreeMap<String, (Descriptor, Vec<Reference>)> = BTreeMap::new();
        for record in self.0.store.images()? {
            let entry = by_target
                .entry(record.target.digest.to_string())
                .or_insert_with(|| (record.target.clone(), Vec::new()));
            entry.1.extend(record.reference);
        }
        let mut all = Vec::new();
        for (target, references) in by_target.into_values() {
            match self.image_of(&target) {
                Ok(image) => all.push(Named { target, references, image }),
                // Content of another platform only, or damaged: not an image that could be used here.
                Err(error) => tracing::debug!("image {}: {}", target.digest, error.report()),
            }
        }
        Ok(all)
    }

    fn names_of(&self, target: &Digest) -> Result<Vec<Reference>> {
        let records = self.0.store.images()?;
        Ok(records
            .into_iter()
            .filter(|record| record.target.digest == *target)
            .filter_map(|record| record.reference)
            .collect())
    }

    /// How many images there are.
    pub(crate) async fn count(&self) -> Result<usize> {
        self.blocking(|this| Ok(this.all()?.len())).await
    }

    /// Fetches an image from its registry and unpacks it.
    ///
    /// # Errors
    ///
    /// The reference is malformed. What goes wrong later ends the stream.
    pub async fn pull(&self, request: PullRequest) -> Result<ProgressStream> {
        if request.all_tags {
            return Err(Error::unsupported(
                "pulling all tags of a repository is not built; name a tag",
            ));
        }
        let reference = Reference::parse(&request.reference)?;
        let platform = choice(request.platform.as_deref())?.unwrap_or(PlatformChoice::Host);
        let credential = request.auth.and_then(credential);
        let this = self.clone();
        Ok(stream::progress(&self.0.tasks, move |sender| async move {
            this.pull_now(reference, platform, credential, sender).await
        }))
    }

    /// Sends an image to its registry.
    ///
    /// # Errors
    ///
    /// The reference is malformed. What goes wrong later ends the stream.
    pub async fn push(&self, request: PushRequest) -> Result<ProgressStream> {
        let reference = Reference::parse(&request.reference)?;
        if self.0.store.resolve(&request.reference).is_err() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        let options = PushOptions {
            platform: choice(request.platform.as_deref())?,
            credential: request.auth.and_then(credential),
        };
        let this = self.clone();
        Ok(stream::progress(&self.0.tasks, move |sender| async move {
            this.push_now(reference, options, sender).await
        }))
    }

    /// Reads a docker or OCI archive.
    ///
    /// # Errors
    ///
    /// None here; what goes wrong ends the stream.
    pub async fn load(&self, archive: ByteStream) -> Result<ProgressStream> {
        let this = self.clone();
        Ok(stream::progress(&self.0.tasks, move |sender| async move {
            this.load_now(archive, sender).await
        }))
    }

    /// Writes images as an archive that `load` and docker read: all that is here of them, or one platform.
    ///
    /// # Errors
    ///
    /// An image does not exist, or not for the platform.
    pub async fn save(&self, names: Vec<String>, platform: Option<String>) -> Result<ByteStream> {
        let choice = choice(platform.as_deref())?.unwrap_or(PlatformChoice::All);
        let images = self
            .blocking(move |this| {
                let mut images: Vec<archive::SavedImage> = Vec::new();
                for name in &names {
                    let (resolved, _) = this.find(name, platform.as_deref())?;
                    let target = resolved.selected().clone();
                    let references = resolved.reference.clone().into_iter();
                    match images.iter_mut().find(|saved| saved.target.digest == target.digest) {
                        Some(saved) => saved.references.extend(references),
                        None => images
                            .push(archive::SavedImage { target, references: references.collect() }),
                    }
                }
                Ok(images)
            })
            .await?;
        let this = self.clone();
        Ok(stream::written(move |writer| {
            archive::save(&this.0.store, &images, &choice, writer).map_err(Error::from)
        }))
    }

    /// Lists images, newest first.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed.
    pub async fn list(&self, request: ListImages) -> Result<Vec<ImageSummary>> {
        self.blocking(move |this| describe::list(this, &request)).await
    }

    /// Everything about one image.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub async fn inspect(&self, image: &str, platform: Option<String>) -> Result<ImageInspect> {
        let text = image.to_owned();
        self.blocking(move |this| describe::inspect(this, &text, platform.as_deref())).await
    }

    /// How it was made, newest step first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub async fn history(&self, image: &str) -> Result<Vec<ImageHistoryResponseItem>> {
        let text = image.to_owned();
        self.blocking(move |this| describe::history(this, &text)).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    ///
    /// It does not exist, or the name is malformed or holds a digest.
    pub async fn tag(&self, image: &str, repository: &str, tag: Option<&str>) -> Result<()> {
        let mut reference = Reference::parse(repository)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
            reference = reference.at_tag(tag)?;
        }
        let text = image.to_owned();
        let (id, name) = self
            .blocking(move |this| {
                let (resolved, image) = this.find(&text, None)?;
                this.0.store.tag(&reference, resolved.selected())?;
                Ok((image.id.to_string(), reference.familiar()))
            })
            .await?;
        self.publish("tag", &id, &name);
        Ok(())
    }

    /// Removes a name, and the image with its last one.
    ///
    /// # Errors
    ///
    /// It does not exist, or a container uses it.
    pub async fn remove(
        &self,
        image: &str,
        options: RemoveImage,
    ) -> Result<Vec<ImageDeleteResponseItem>> {
        let _alone = self.0.removal.write().await;
        let text = image.to_owned();
        let removed = self.blocking(move |this| remove::remove(this, &text, options)).await;
        self.sweep_behind();
        removed
    }

    /// Removes images that nothing uses.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed.
    pub async fn prune(&self, filters: Filters) -> Result<ImagePruneResponse> {
        let _alone = self.0.removal.write().await;
        let pruned = self.blocking(move |this| remove::prune(this, &filters)).await;
        self.sweep_behind();
        pruned
    }

    /// Tries credentials on a registry.
    pub(crate) async fn authenticate(&self, auth: AuthConfig) -> Result<AuthResponse> {
        let server = auth.serveraddress.clone().unwrap_or_default();
        let credential = registry::Credential::Basic {
            username: auth.username.unwrap_or_default(),
            password: auth.password.unwrap_or_default(),
        };
        let domain = registry_domain(&server);
        self.0.client.login(&domain, credential).await?;
        Ok(AuthResponse { status: "Login Succeeded".into(), identity_token: Some(String::new()) })
    }

    fn lock_of(&self, chain_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(chain_id.to_owned()).or_default())
    }
}

/// The image's name as docker would show it in an error: with its tag.
fn displayed(text: &str) -> String {
    Reference::parse(text).map_or_else(|_| text.to_owned(), |reference| reference.familiar())
}

fn credential(auth: RegistryAuth) -> Option<registry::Credential> {
    if !auth.registry_token.is_empty() {
        return Some(registry::Credential::RegistryToken(auth.registry_token));
    }
    if !auth.identity_token.is_empty() {
        return Some(registry::Credential::IdentityToken(auth.identity_token));
    }
    let named = !auth.username.is_empty();
    named
        .then_some(registry::Credential::Basic { username: auth.username, password: auth.password })
}

/// The platform that a call asks for, if it does.
fn choice(platform: Option<&str>) -> Result<Option<PlatformChoice>> {
    let platform = platform.filter(|text| !text.is_empty()).map(Platform::parse).transpose()?;
    Ok(platform.map(PlatformChoice::Exactly))
}

/// `https://index.docker.io/v1/` is what clients call the default registry.
fn registry_domain(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        domain => domain.to_owned(),
    }
}

fn registry_config(config: &Config) -> Result<registry::Config> {
    let mut hosts: BTreeMap<String, registry::HostConfig> = BTreeMap::new();
    for host in &config.insecure_registries {
        hosts.entry(host.clone()).or_default().security = Some(registry::Security::Insecure);
    }
    for (host, mirrors) in &config.registry_mirrors {
        let mirrors = mirrors.iter().map(|mirror| registry::Mirror::at(mirror)).collect();
        hosts.entry(host.clone()).or_default().mirrors = mirrors;
    }
    let mut settings = registry::Config {
        hosts,
        user_agent: concat!("brig/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..registry::Config::default()
    };
    settings.read_host_directories(&config.registry_config_path)?;
    Ok(settings)
}

/// Docker's order: newest first.
fn newest_first(left: &Named, right: &Named) -> std::cmp::Ordering {
    right.image.config.created().cmp(left.image.config.created())
}
