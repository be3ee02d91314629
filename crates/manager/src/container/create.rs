//! Making containers.

mod check;
mod merge;
mod mounts;

pub(super) use merge::merge;
pub(crate) use mounts::shortest_path;

use std::collections::BTreeMap;
use std::sync::Arc;

use brig_images::Image;
use brig_storage::Tree;

use super::lifecycle;
use super::requests::{CreateContainer, RemoveOptions};
use super::spec::{self, Namespace};
use super::user::User;
use super::{Shared, blocking_with, driver, now, publish, put};
use crate::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::image::image_config;
use crate::metadata::{Attachment, ContainerRecord, MountKind};
use crate::models::{ContainerCreateBody, ContainerCreateResponse, EndpointSettings};
use crate::name;
use crate::network::check_settings;

/// Makes a container.
pub(super) async fn create(
    shared: &Arc<Shared>,
    request: CreateContainer,
) -> Result<ContainerCreateResponse> {
    let id = name::new_id();
    let name = match request.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name::parse_container(name)?.to_owned(),
        None => name::generate(|candidate| shared.table.is_name_taken(candidate)),
    };
    shared.table.reserve(&name, &id)?;
    let created = create_named(shared, request, id, name.clone()).await;
    if created.is_err() {
        shared.table.release(&name);
    }
    created
}

async fn create_named(
    shared: &Arc<Shared>,
    request: CreateContainer,
    id: String,
    name: String,
) -> Result<ContainerCreateResponse> {
    let CreateContainer { platform, body, on_unhealthy, .. } = request;
    let reference = body.image.clone().unwrap_or_default();
    if reference.is_empty() {
        return Err(Error::invalid("no image was named"));
    }
    let using = shared.images.using().await;
    let (resolved, image) =
        blocking_with(shared, move |shared| shared.images.find(&reference, platform.as_deref()))
            .await?;
    let mut record = ContainerRecord {
        id,
        name,
        created_at: now(),
        image: body.image.clone().unwrap_or_default(),
        image_id: image.id.to_string(),
        manifest: resolved.selected().digest.to_string(),
        restarts_unhealthy: on_unhealthy,
        incomplete: true,
        ..ContainerRecord::default()
    };
    // Only a missing image may be told as "not found" here: clients answer that by pulling it.
    let warnings = fill(shared, &mut record, body, &image).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::invalid(error.report()),
        _ => error,
    })?;
    validate(shared, &record)?;
    record.parent_layer = shared.images.unpack(&image, None).await?;
    // From here on the record owns what is made, so that a crash leaves nothing without an owner.
    mounts::name_volumes(&mut record);
    put(shared, &record).await?;
    failpoint::hit("create-intended")?;
    if let Err(error) = finish(shared, &mut record).await {
        let options = RemoveOptions { force: true, volumes: true };
        if let Err(failure) = lifecycle::remove(shared, &mut record, options).await {
            tracing::warn!(container = %record.id, "undo a failed create: {}", failure.report());
        }
        return Err(error);
    }
    let id = record.id.clone();
    publish(&shared.events, &record, "create", &[]);
    driver::spawn(shared, record, None);
    drop(using);
    Ok(ContainerCreateResponse { id, warnings })
}

/// Merges image and request into the record.
fn fill(
    shared: &Arc<Shared>,
    record: &mut ContainerRecord,
    body: ContainerCreateBody,
    image: &Image,
) -> Result<Vec<String>> {
    let (config, host_config, networking) = merge::split(body);
    record.host_config = host_config;
    let image = image_config(image);
    record.config = merge(config, image)?;
    let warnings = check::check(record, &shared.config)?;
    let (path, args) = merge::command(&record.config)?;
    (record.path, record.args) = (path, args);
    record.mounts = mounts::collect(shared, record)?;
    record.networks =
        networks(shared, record, networking.and_then(|networking| networking.endpoints_config))?;
    name_host(shared, record)?;
    Ok(warnings)
}

/// The container's own host name: asked for, its id, or the one of whoever's network or UTS namespace it shares.
fn name_host(shared: &Shared, record: &mut ContainerRecord) -> Result<()> {
    let mode = record.host_config.network_mode.clone().unwrap_or_default();
    let shares_host = mode == "host" || record.host_config.uts_mode.as_deref() == Some("host");
    if record.config.hostname.as_deref().is_some_and(|hostname| !hostname.is_empty()) {
        return Ok(());
    }
    let hostname = if shares_host {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else if let Some(other) = mode.strip_prefix("container:") {
        shared.table.find(other)?.view().record.config.hostname.clone().unwrap_or_default()
    } else {
        name::short(&record.id).to_owned()
    };
    record.config.hostname = Some(hostname);
    Ok(())
}

/// The networks of the request by their names.
fn networks(
    shared: &Shared,
    record: &mut ContainerRecord,
    endpoints: Option<std::collections::HashMap<String, EndpointSettings>>,
) -> Result<BTreeMap<String, Attachment>> {
    let mode = match record.host_config.network_mode.as_deref() {
        None | Some("" | "default") => "bridge".to_owned(),
        Some(mode) => mode.to_owned(),
    };
    let mut networks = BTreeMap::new();
    if let Some(other) = mode.strip_prefix("container:") {
        let id = shared.table.find(other)?.view().record.id.clone();
        if id == record.id {
            return Err(Error::invalid("a container cannot join its own network"));
        }
        record.host_config.network_mode = Some(format!("container:{id}"));
        return Ok(networks);
    }
    record.host_config.network_mode = Some(mode.clone());
    let mut endpoints = endpoints.unwrap_or_default();
    let own = ["default", mode.as_str()]
        .iter()
        .find_map(|name| endpoints.remove(*name))
        .unwrap_or_default();
    for (name, settings) in std::iter::once((mode.clone(), own)).chain(endpoints) {
        let network = shared.networks.find(&name)?;
        check_settings(&name, &settings)?;
        let fixed = settings.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_deref());
        if fixed.is_some_and(|address| !address.is_empty()) && !network.subnet_requested {
            return Err(Error::invalid(format!(
                "invalid config for network {name}: user specified IP address is supported only when connecting to \
                 networks with user configured subnets"
            )));
        }
        networks.insert(network.config.name.clone(), Attachment { settings, endpoint: None });
    }
    if networks.len() > 1 && (mode == "host" || mode == "none") {
        return Err(Error::invalid(format!(
            "network {mode} cannot be combined with other networks"
        )));
    }
    Ok(networks)
}

/// Builds the configuration once with a stand-in for what only the start knows, so that a wrong request fails now.
fn validate(shared: &Shared, record: &ContainerRecord) -> Result<()> {
    let host = &record.host_config;
    let of = |mode: Option<&str>| match mode {
        Some("host") => Namespace::Host,
        _ => Namespace::Private,
    };
    let input = spec::Input {
        record,
        config: &shared.config,
        user: &User::default(),
        network: of(host.network_mode.as_deref()),
        pid: of(host.pid_mode.as_deref()),
        ipc: of(host.ipc_mode.as_deref()),
        files: &[],
        cgroup_v2: shared.cgroup_v2,
    };
    spec::build(&input).map(drop)
}

/// Makes what the record owns; then the record says that the container is whole.
async fn finish(shared: &Arc<Shared>, record: &mut ContainerRecord) -> Result<()> {
    furnish(shared, record).await?;
    record.incomplete = false;
    put(shared, record).await?;
    failpoint::hit("create-recorded")
}

/// Makes the snapshot, the directory and the volumes that the record owns.
async fn furnish(shared: &Arc<Shared>, record: &ContainerRecord) -> Result<()> {
    let (again, id) = (Arc::clone(shared), record.id.clone());
    let parent = record.parent_layer.clone();
    blocking::run(move || {
        let key = lifecycle::snapshot_key(&id)?;
        let parent = parent.map(brig_storage::SnapshotKey::parse).transpose()?;
        again.storage.snapshots().prepare_container(&key, parent.as_ref())?;
        failpoint::hit("snapshot-prepared")?;
        super::make_directory(&again.config.root.join("containers").join(&id))
    })
    .await?;
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let labels = mount.volume_labels.clone();
        let made = if mount.anonymous {
            shared.volumes.anonymous(mount.name.as_deref().unwrap_or_default(), labels).await
        } else {
            let options = mount.volume_options.clone();
            shared
                .volumes
                .for_container(mount.name.as_deref().unwrap_or_default(), labels, options)
                .await
        };
        made?;
    }
    copy_up(shared, record).await
}

/// Gives new volumes the image's files of the same path.
async fn copy_up(shared: &Arc<Shared>, record: &ContainerRecord) -> Result<()> {
    let wanted: Vec<(String, String)> = record
        .mounts
        .iter()
        // A part of a volume is there already, or the start fails.
        .filter(|mount| {
            mount.kind == MountKind::Volume && !mount.no_copy && mount.subpath.is_empty()
        })
        .map(|mount| (mount.name.clone().unwrap_or_default(), mount.destination.clone()))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let id = record.id.clone();
    blocking_with(shared, move |shared| {
        let mounts = shared.storage.snapshots().mounts(&lifecycle::snapshot_key(&id)?)?;
        let tree = Tree::of_snapshot(&mounts, Vec::new())?;
        for (volume, destination) in wanted {
            shared.storage.volumes().mount(&volume)?;
            shared.storage.volumes().populate(&volume, &tree, &destination)?;
        }
        Ok(())
    })
    .await
}
