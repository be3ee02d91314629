//! Volumes: kept by the storage library, counted here by the containers that use them.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use brig_images::archive;
use brig_storage::{Storage, VolumeRequest, WriteOptions};
use time::format_description::well_known::Rfc3339;

use crate::blocking;
use crate::container::Table;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filters::Filters;
use crate::metadata::ContainerRecord;
use crate::models::{
    EventMessageTypeEnum, Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse,
    VolumeScopeEnum,
};
use crate::name;
use crate::stream::{self, ByteStream};

/// The label of a volume that was made without a name.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// All volumes of the engine.
#[derive(Debug, Clone)]
pub struct Volumes {
    storage: Arc<Storage>,
    table: Table,
    events: Events,
}

impl Volumes {
    pub(crate) fn new(storage: Arc<Storage>, table: Table, events: Events) -> Self {
        Self { storage, table, events }
    }

    fn publish(&self, action: &str, name: &str) {
        let attributes = HashMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.publish(EventMessageTypeEnum::VOLUME, action, name, attributes);
    }

    /// Makes a volume, or returns the one of that name.
    ///
    /// # Errors
    ///
    /// The name or an option is malformed, the driver is not built, or a volume of that name has other options.
    pub async fn create(&self, request: VolumeCreateRequest) -> Result<Volume> {
        if let Some(driver) =
            request.driver.as_deref().filter(|driver| !driver.is_empty() && *driver != "local")
        {
            return Err(Error::unsupported(format!(
                "volume driver {driver} is not built; use local"
            )));
        }
        if request.cluster_volume_spec.is_some() {
            return Err(Error::unsupported("cluster volumes are not built"));
        }
        let mut labels: BTreeMap<String, String> =
            request.labels.unwrap_or_default().into_iter().collect();
        let name = match request.name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => {
                labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
                name::new_id()
            }
        };
        let options = request.driver_opts.unwrap_or_default().into_iter().collect();
        self.make(VolumeRequest { name, options, labels }).await
    }

    /// Makes a named volume for a container; one of that name is used as it is.
    pub(crate) async fn for_container(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        match self.inspect(name).await {
            Err(error) if error.kind() == crate::ErrorKind::NotFound => {
                self.make(VolumeRequest { name: name.to_owned(), options, labels }).await
            }
            found => found,
        }
    }

    /// Makes an anonymous volume for a container, under the name that its record has.
    pub(crate) async fn anonymous(
        &self,
        name: &str,
        mut labels: BTreeMap<String, String>,
    ) -> Result<Volume> {
        labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        self.make(VolumeRequest { name: name.to_owned(), options: BTreeMap::new(), labels }).await
    }

    async fn make(&self, request: VolumeRequest) -> Result<Volume> {
        let storage = Arc::clone(&self.storage);
        let name = request.name.clone();
        let (volume, new) = blocking::run(move || {
            let new = storage.volumes().inspect(&request.name).is_err();
            Ok((storage.volumes().create(&request)?, new))
        })
        .await?;
        if new {
            self.publish("create", &name);
        }
        describe(volume)
    }

    async fn all(&self) -> Result<Vec<Volume>> {
        let storage = Arc::clone(&self.storage);
        let volumes = blocking::run(move || storage.volumes().list().map_err(Error::from)).await?;
        volumes.into_iter().map(describe).collect()
    }

    /// Lists volumes.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed.
    pub async fn list(&self, filters: Filters) -> Result<VolumeListResponse> {
        filters.check(&["dangling", "driver", "label", "label!", "name"])?;
        let dangling = filters.flag("dangling")?;
        let mut volumes = self.all().await?;
        volumes.retain(|volume| {
            dangling.is_none_or(|dangling| dangling != self.is_used(&volume.name))
                && filters.any("name", |text| volume.name.contains(text))
                && filters.any("driver", |text| volume.driver == text)
                && filters.labels(&volume.labels)
        });
        Ok(VolumeListResponse { volumes: Some(volumes), warnings: Some(Vec::new()) })
    }

    /// One volume.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::NotFound`].
    pub async fn inspect(&self, volume: &str) -> Result<Volume> {
        let (storage, name) = (Arc::clone(&self.storage), volume.to_owned());
        let volume = blocking::run(move || {
            storage.volumes().inspect(&name).map_err(|source| match source.kind() {
                brig_storage::ErrorKind::NotFound => {
                    Error::not_found(format!("get {name}: no such volume"))
                }
                _ => Error::from(source),
            })
        });
        describe(volume.await?)
    }

    /// All files of a volume, as a tar archive, plain or compressed by `zstd`: what they are while it is read, container or not.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub async fn export(&self, volume: &str, compression: &str) -> Result<ByteStream> {
        let is_compressed = match compression {
            "" | "none" => false,
            "zstd" => true,
            other => {
                let problem = format!("compression {other:?} is not built; use none or zstd");
                return Err(Error::unsupported(problem));
            }
        };
        self.inspect(volume).await?;
        let (storage, name) = (Arc::clone(&self.storage), volume.to_owned());
        let tree = blocking::run(move || storage.volumes().tree(&name).map_err(Error::from));
        let tree = tree.await?;
        Ok(stream::written(move |mut writer| {
            if is_compressed {
                let export = |mut inner: &mut dyn Write| {
                    tree.export(&mut inner).map_err(std::io::Error::other)
                };
                return archive::compress(writer, export)
                    .map_err(|source| Error::io("export the volume", source));
            }
            tree.export(&mut writer).map_err(Error::from)
        }))
    }

    /// Extracts a tar archive, compressed or not, over what a volume has.
    ///
    /// # Errors
    ///
    /// It does not exist, or the archive is malformed; what was extracted before that stays.
    pub async fn import(&self, volume: &str, body: ByteStream) -> Result<()> {
        self.inspect(volume).await?;
        let (storage, name) = (Arc::clone(&self.storage), volume.to_owned());
        let mut reader = stream::reader(body);
        blocking::run(move || {
            let context = || format!("import into volume {name}");
            let tree = storage.volumes().tree(&name)?;
            let mut plain =
                archive::decompress(&mut reader).map_err(|source| Error::io(context(), source))?;
            tree.write_tar("/", &mut plain, &WriteOptions::default())
                .map_err(|source| Error::from(source).context(context()))?;
            Ok(())
        })
        .await
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    ///
    /// It does not exist (unless `force`), or a container uses it.
    pub async fn remove(&self, volume: &str, force: bool) -> Result<()> {
        match self.inspect(volume).await {
            Err(error) if force && error.kind() == crate::ErrorKind::NotFound => return Ok(()),
            found => drop(found?),
        }
        let users = self.users(volume);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {volume}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.destroy(volume).await
    }

    /// Removes a volume whose users were looked at.
    pub(crate) async fn destroy(&self, volume: &str) -> Result<()> {
        let (storage, name) = (Arc::clone(&self.storage), volume.to_owned());
        blocking::run(move || storage.volumes().remove(&name).map_err(Error::from)).await?;
        self.publish("destroy", volume);
        Ok(())
    }

    /// Removes volumes that no container uses: the anonymous ones, or with `all=true` every one.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed. Volumes that cannot be removed are left.
    pub async fn prune(&self, filters: Filters) -> Result<VolumePruneResponse> {
        filters.check(&["all", "label", "label!"])?;
        let all = filters.flag("all")?.unwrap_or(false);
        let mut removed = Vec::new();
        let mut bytes = 0_i64;
        for volume in self.all().await? {
            let anonymous = volume.labels.contains_key(ANONYMOUS_LABEL);
            if !(all || anonymous) || !filters.labels(&volume.labels) || self.is_used(&volume.name)
            {
                continue;
            }
            let size = self.size(&volume).await;
            match self.destroy(&volume.name).await {
                Ok(()) => {
                    bytes = bytes.saturating_add(size);
                    removed.push(volume.name);
                }
                Err(error) => tracing::warn!("prune volume {}: {}", volume.name, error.report()),
            }
        }
        Ok(VolumePruneResponse { volumes_deleted: Some(removed), space_reclaimed: Some(bytes) })
    }

    /// All volumes with their sizes and numbers of users.
    pub(crate) async fn usage(&self) -> Result<Vec<Volume>> {
        let mut volumes = self.all().await?;
        for volume in &mut volumes {
            let size = self.size(volume).await;
            let ref_count = i64::try_from(self.users(&volume.name).len()).unwrap_or(i64::MAX);
            volume.usage_data = Some(crate::models::VolumeUsageData { size, ref_count });
        }
        Ok(volumes)
    }

    /// Bytes on disk of a volume's files; -1 when they cannot be read.
    async fn size(&self, volume: &Volume) -> i64 {
        let directory = std::path::PathBuf::from(&volume.mountpoint);
        blocking::run(move || Ok(disk_use(&directory))).await.unwrap_or(-1)
    }

    fn users(&self, volume: &str) -> Vec<String> {
        let views = self.table.views();
        views
            .iter()
            .filter(|view| uses(&view.record, volume))
            .map(|view| view.record.id.clone())
            .collect()
    }

    fn is_used(&self, volume: &str) -> bool {
        !self.users(volume).is_empty()
    }

    /// Another container has the volume.
    pub(crate) fn is_used_by_others(&self, volume: &str, container: &str) -> bool {
        self.users(volume).iter().any(|user| user != container)
    }

    /// Another container that runs has the volume.
    pub(crate) fn is_mounted_for_others(&self, volume: &str, container: &str) -> bool {
        let views = self.table.views();
        views.iter().any(|view| {
            view.record.id != container
                && view.record.state.phase.is_alive()
                && uses(&view.record, volume)
        })
    }
}

fn uses(record: &ContainerRecord, volume: &str) -> bool {
    record.mounts.iter().any(|mount| mount.name.as_deref() == Some(volume))
}

fn describe(volume: brig_storage::Volume) -> Result<Volume> {
    let created_at = volume.created.format(&Rfc3339).map_err(|source| {
        Error::invalid(format!("write the time of volume {}", volume.name)).with_source(source)
    })?;
    Ok(Volume {
        name: volume.name,
        driver: volume.driver.to_owned(),
        mountpoint: volume.mountpoint.display().to_string(),
        created_at: Some(created_at),
        status: None,
        labels: volume.labels.into_iter().collect(),
        scope: Some(VolumeScopeEnum::LOCAL),
        cluster_volume: None,
        options: volume.options.into_iter().collect(),
        usage_data: None,
    })
}

/// Allocated bytes beneath a directory, links not followed, each file once. Entries that vanish meanwhile do not count.
fn disk_use(directory: &std::path::Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut blocks = 0_u64;
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() == 1
                || metadata.is_dir()
                || seen.insert((metadata.dev(), metadata.ino()))
            {
                blocks = blocks.saturating_add(metadata.blocks());
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    i64::try_from(blocks.saturating_mul(512)).unwrap_or(i64::MAX)
}
