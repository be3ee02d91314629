//! Images as the Engine API shows them.

use std::collections::HashMap;

use brig_images::{Image, Reference};
use brig_storage::SnapshotKey;

use super::{Images, ListImages, Named, newest_first};
use crate::container::timestamp_seconds;
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{
    DriverData, HealthConfig, ImageConfig, ImageHistoryResponseItem, ImageInspect,
    ImageInspectMetadata, ImageInspectRootFs, ImageSummary, OciDescriptor,
};

/// What each image stands on, in bytes: unpacked where it is unpacked.
pub(super) fn size(images: &Images, image: &Image) -> i64 {
    let sizes = layer_sizes(images, image);
    i64::try_from(sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size)))
        .unwrap_or(i64::MAX)
}

fn layer_sizes(images: &Images, image: &Image) -> Vec<u64> {
    let snapshots = images.0.storage.snapshots();
    image
        .chain_ids()
        .iter()
        .zip(&image.layers)
        .map(|(chain_id, layer)| {
            let usage =
                SnapshotKey::parse(chain_id.to_string()).and_then(|key| snapshots.usage(&key));
            usage.map_or(layer.size, |usage| usage.bytes)
        })
        .collect()
}

pub(super) fn list(images: &Images, request: &ListImages) -> Result<Vec<ImageSummary>> {
    let filters = &request.filters;
    filters.check(&["before", "dangling", "label", "label!", "reference", "since", "until"])?;
    let dangling = filters.flag("dangling")?;
    let until = crate::container::parse_until(filters)?;
    let before = moment_of(images, filters, "before")?;
    let since = moment_of(images, filters, "since")?;
    let mut all = images.all()?;
    all.sort_by(newest_first);
    let wanted = |named: &Named| {
        let created = named.image.config.created().clone().unwrap_or_default();
        dangling.is_none_or(|dangling| dangling == named.references.is_empty())
            && until.as_ref().is_none_or(|until| created < *until)
            && before.as_ref().is_none_or(|before| created < *before)
            && since.as_ref().is_none_or(|since| created > *since)
            && filters.labels(&labels(&named.image))
    };
    let mut summaries = Vec::new();
    for named in all.iter().filter(|named| wanted(named)) {
        let shown: Vec<&Reference> = named
            .references
            .iter()
            .filter(|name| filters.any("reference", |pattern| matches(pattern, name)))
            .collect();
        if shown.is_empty() && !filters.values("reference").is_empty() {
            continue;
        }
        summaries.push(summary(images, named, &shown));
    }
    Ok(summaries)
}

/// When the image that a `before` or `since` filter names was made.
fn moment_of(images: &Images, filters: &Filters, name: &str) -> Result<Option<String>> {
    let Some(text) = filters.values(name).first() else { return Ok(None) };
    let (_, image) = images.find(text, None)?;
    Ok(Some(image.config.created().clone().unwrap_or_default()))
}

/// Docker's `reference` filter: a shell pattern over the familiar name, with or without the tag.
fn matches(pattern: &str, reference: &Reference) -> bool {
    let (with_tag, name) = (reference.familiar(), reference.familiar_name());
    glob(pattern.as_bytes(), with_tag.as_bytes()) || glob(pattern.as_bytes(), name.as_bytes())
}

/// `*` matches anything but a slash, `?` one such character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit.
    let (mut p, mut t, mut retry) = (0, 0, None::<(usize, usize)>);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(letter) if *letter == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((after, at)) if text[at] != b'/' => {
                    (p, t) = (after, at + 1);
                    retry = Some((after, at + 1));
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

fn labels(image: &Image) -> HashMap<String, String> {
    image.labels().into_iter().collect()
}

fn summary(images: &Images, named: &Named, shown: &[&Reference]) -> ImageSummary {
    let id = named.image.id.to_string();
    let containers =
        images.0.table.views().iter().filter(|view| view.record.image_id == id).count();
    let created = named.image.config.created().as_deref().and_then(timestamp_seconds).unwrap_or(0);
    ImageSummary {
        id,
        parent_id: String::new(),
        repo_tags: shown
            .iter()
            .filter(|name| name.tag().is_some())
            .map(|name| name.familiar())
            .collect(),
        repo_digests: repo_digests(named, shown.iter().copied()),
        created,
        size: size(images, &named.image),
        shared_size: -1,
        labels: labels(&named.image),
        containers: i64::try_from(containers).unwrap_or(i64::MAX),
        manifests: None,
        descriptor: Some(descriptor(&named.target)),
    }
}

fn repo_digests<'a>(named: &Named, shown: impl Iterator<Item = &'a Reference>) -> Vec<String> {
    let mut digests: Vec<String> =
        shown.map(|name| format!("{}@{}", name.familiar_name(), named.target.digest)).collect();
    digests.sort();
    digests.dedup();
    digests
}

fn descriptor(target: &brig_images::Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: Some(target.media_type.clone()),
        digest: Some(target.digest.to_string()),
        size: i64::try_from(target.size).ok(),
        ..OciDescriptor::default()
    }
}

pub(super) fn inspect(images: &Images, text: &str, platform: Option<&str>) -> Result<ImageInspect> {
    let (resolved, image) = images.find(text, platform)?;
    let references = images.names_of(&resolved.target.digest)?;
    let named = Named { target: resolved.target, references, image };
    let config = &named.image.config;
    let data = HashMap::from([("Snapshotter".to_owned(), images.driver().to_owned())]);
    Ok(ImageInspect {
        id: Some(named.image.id.to_string()),
        descriptor: Some(descriptor(&named.target)),
        repo_tags: Some(
            named
                .references
                .iter()
                .filter(|name| name.tag().is_some())
                .map(|name| name.familiar())
                .collect(),
        ),
        repo_digests: Some(repo_digests(&named, named.references.iter())),
        comment: Some(String::new()),
        created: config.created().clone(),
        author: Some(config.author().clone().unwrap_or_default()),
        config: Some(image_config(&named.image)),
        architecture: Some(named.image.platform.architecture.clone()),
        variant: named.image.platform.variant.clone(),
        os: Some(named.image.platform.os.clone()),
        os_version: named.image.platform.os_version.clone(),
        size: Some(size(images, &named.image)),
        graph_driver: Some(DriverData { name: images.driver().into(), data }),
        root_fs: Some(ImageInspectRootFs {
            typ: "layers".into(),
            layers: Some(named.image.diff_ids.iter().map(ToString::to_string).collect()),
        }),
        metadata: Some(ImageInspectMetadata { last_tag_time: None }),
        ..ImageInspect::default()
    })
}

/// The part of an image's configuration that may influence a container, in the API's form.
pub(crate) fn image_config(image: &Image) -> ImageConfig {
    let config = image.config.config().clone().unwrap_or_default();
    let docker = &image.docker;
    let filled = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    ImageConfig {
        user: Some(config.user().clone().unwrap_or_default()),
        exposed_ports: filled(config.exposed_ports()),
        env: Some(config.env().clone().unwrap_or_default()),
        cmd: config.cmd().clone(),
        healthcheck: docker.healthcheck.as_ref().map(|check| HealthConfig {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            retries: check.retries,
            start_period: check.start_period,
            start_interval: check.start_interval,
        }),
        args_escaped: None,
        volumes: filled(config.volumes()),
        working_dir: Some(config.working_dir().clone().unwrap_or_default()),
        entrypoint: config.entrypoint().clone(),
        on_build: docker.on_build.clone(),
        labels: Some(labels(image)),
        stop_signal: config.stop_signal().clone(),
        shell: docker.shell.clone(),
    }
}

pub(super) fn history(images: &Images, text: &str) -> Result<Vec<ImageHistoryResponseItem>> {
    let (resolved, image) = images.find(text, None)?;
    let names = images.names_of(&resolved.target.digest)?;
    let steps = image.config.history().iter().flatten();
    let steps: Vec<_> = steps.map(|step| (step, step.empty_layer().unwrap_or(false))).collect();
    let mut sizes = layer_sizes(images, &image).into_iter();
    // Layers that no step speaks of are below those that were made on top of them.
    let untold = sizes.len().saturating_sub(steps.iter().filter(|(_, empty)| !empty).count());
    let item = |size: u64| ImageHistoryResponseItem {
        id: "<missing>".into(),
        created: 0,
        created_by: String::new(),
        tags: Vec::new(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        comment: String::new(),
    };
    let mut items: Vec<_> = sizes.by_ref().take(untold).map(item).collect();
    items.extend(steps.into_iter().map(|(step, empty)| ImageHistoryResponseItem {
        created: step.created().as_deref().and_then(timestamp_seconds).unwrap_or(0),
        created_by: step.created_by().clone().unwrap_or_default(),
        comment: step.comment().clone().unwrap_or_default(),
        ..item(if empty { 0 } else { sizes.next().unwrap_or(0) })
    }));
    items.reverse();
    if let Some(newest) = items.first_mut() {
        newest.id = image.id.to_string();
        newest.tags = names.iter().map(Reference::familiar).collect();
    }
    Ok(items)
}

impl Images {
    /// Bytes of all layers, each once, with those that are removed but not deleted yet.
    pub(crate) async fn layers_size(&self) -> Result<i64> {
        self.blocking(|this| {
            let list = this.0.storage.snapshots().list();
            let sizes = list.iter().filter_map(|info| info.usage).map(|usage| usage.bytes);
            let removing = this.0.storage.snapshots().removing().bytes;
            i64::try_from(sizes.fold(removing, u64::saturating_add))
                .map_err(|_| Error::invalid("more than 8 EiB of layers"))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_match_as_in_docker() {
        let rows = [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*:l?test", "busybox", true),
            ("*", "busybox", true),
            ("*", "a/busybox", false),
            ("*/busybox", "a/busybox", true),
            ("debian", "busybox", false),
        ];
        for (pattern, name, expected) in rows {
            let reference = Reference::parse(name).expect(name);
            assert_eq!(matches(pattern, &reference), expected, "{pattern} {name}");
        }
    }
}
