//! Removing images: names first, the image with its last name, never one that a running container uses.

use std::sync::Arc;

use brig_images::{Descriptor, Image, Reference};

use super::{Images, Named, RemoveImage};
use crate::container::View;
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{ImageDeleteResponseItem, ImagePruneResponse};
use crate::name;

/// Partial downloads younger than this belong to someone who is still at it.
const PARTIAL_AGE: std::time::Duration = brig_images::PARTIAL_AGE;

/// Removes a name or an image.
pub(super) fn remove(
    images: &Images,
    text: &str,
    options: RemoveImage,
) -> Result<Vec<ImageDeleteResponseItem>> {
    let (resolved, image) = images.find(text, None)?;
    let target = resolved.target.clone();
    let names = images.names_of(&target.digest)?;
    let users = users(images, &image);
    let mut items = Vec::new();
    if let Some(reference) = resolved.reference {
        let is_last = names.len() <= 1;
        if is_last {
            check_last_name(&users, &image, &reference, options)?;
        }
        // One of several names, or forced: the container keeps its image, which has no name any more.
        if !is_last || !users.is_empty() {
            images.0.store.untag(&reference)?;
            let left = images.names_of(&target.digest)?;
            untagged(images, &image, &target, &reference, &left, &mut items);
            return Ok(items);
        }
    } else {
        check_id(&users, &image, &names, options)?;
    }
    delete(images, &image, &target, &mut items)?;
    Ok(items)
}

fn users(images: &Images, image: &Image) -> Vec<Arc<View>> {
    let id = image.id.to_string();
    images.0.table.views().into_iter().filter(|view| view.record.image_id == id).collect()
}

fn check_last_name(
    users: &[Arc<View>],
    image: &Image,
    reference: &Reference,
    options: RemoveImage,
) -> Result<()> {
    let Some(user) = users.iter().max_by_key(|view| view.record.state.phase.is_alive()) else {
        return Ok(());
    };
    if options.force {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "conflict: unable to remove repository reference \"{}\" (must force) - container {} is using its referenced \
         image {}",
        reference.familiar(),
        name::short(&user.record.id),
        image.id.short()
    )))
}

fn check_id(
    users: &[Arc<View>],
    image: &Image,
    names: &[Reference],
    options: RemoveImage,
) -> Result<()> {
    let id = image.id.short();
    if let Some(user) = users.iter().find(|view| view.record.state.phase.is_alive()) {
        return Err(Error::conflict(format!(
            "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {}",
            name::short(&user.record.id)
        )));
    }
    if options.force {
        return Ok(());
    }
    let mut repositories: Vec<String> = names.iter().map(Reference::repository).collect();
    repositories.sort();
    repositories.dedup();
    if repositories.len() > 1 {
        return Err(Error::conflict(format!(
            "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    if let Some(user) = users.first() {
        return Err(Error::conflict(format!(
            "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {}",
            name::short(&user.record.id)
        )));
    }
    Ok(())
}

/// Tells that a name is gone, and which are `left`.
fn untagged(
    images: &Images,
    image: &Image,
    target: &Descriptor,
    reference: &Reference,
    left: &[Reference],
    items: &mut Vec<ImageDeleteResponseItem>,
) {
    let item = |name| ImageDeleteResponseItem { untagged: Some(name), deleted: None };
    let shown = reference.familiar();
    images.publish("untag", &image.id.to_string(), &shown);
    items.push(item(shown));
    // The digest goes with the last name in its repository.
    let repository = reference.repository();
    let named = left.iter().any(|other| other.repository() == repository);
    if reference.digest().is_none() && !named {
        items.push(item(format!("{}@{}", reference.familiar_name(), target.digest)));
    }
}

fn deleted(id: String) -> ImageDeleteResponseItem {
    ImageDeleteResponseItem { untagged: None, deleted: Some(id) }
}

/// Drops the record with all names, then what nothing else needs: layers and content.
fn delete(
    images: &Images,
    image: &Image,
    target: &Descriptor,
    items: &mut Vec<ImageDeleteResponseItem>,
) -> Result<u64> {
    // At once: the index is written durably each time it changes.
    let names = match images.0.store.remove(&target.digest) {
        Err(error) if error.kind() == brig_images::ErrorKind::NotFound => Vec::new(),
        removed => removed?,
    };
    for (at, reference) in names.iter().enumerate() {
        untagged(images, image, target, reference, &names[at + 1..], items);
    }
    let id = image.id.to_string();
    images.publish("delete", &id, &id);
    items.push(deleted(id));
    items.extend(images.sweep_layers()?.into_iter().map(deleted));
    collect(images)
}

/// Removes content that nothing needs; answers how many bytes that frees.
pub(super) fn collect(images: &Images) -> Result<u64> {
    Ok(images.0.store.collect_garbage(&in_use(images), PARTIAL_AGE)?.bytes)
}

/// Content that containers need although its image has lost its record.
fn in_use(images: &Images) -> Vec<brig_images::Digest> {
    let views = images.0.table.views();
    let manifests =
        views.iter().filter_map(|view| brig_images::Digest::parse(&view.record.manifest).ok());
    manifests.filter(|digest| images.0.store.blobs().contains(digest)).collect()
}

/// Removes dangling images, or with `dangling=false` all that no container uses.
pub(super) fn prune(images: &Images, filters: &Filters) -> Result<ImagePruneResponse> {
    filters.check(&["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.flag("dangling")?.unwrap_or(true);
    let until = crate::container::parse_until(filters)?;
    let mut items = Vec::new();
    let mut bytes = 0;
    let unused = |named: &Named| users(images, &named.image).is_empty();
    let old = |named: &Named| match (&until, named.image.config.created()) {
        (Some(until), Some(created)) => created < until,
        (Some(_), None) | (None, _) => true,
    };
    let labels = |named: &Named| filters.labels(&named.image.labels().into_iter().collect());
    for named in images.all()? {
        let candidate = named.references.is_empty() || !dangling_only;
        if !(candidate && unused(&named) && old(&named) && labels(&named)) {
            continue;
        }
        bytes += delete(images, &named.image, &named.target, &mut items)?;
    }
    // What interrupted transfers left goes too, whether or not an image does.
    bytes += collect(images)?;
    let space_reclaimed = i64::try_from(bytes).ok();
    Ok(ImagePruneResponse { images_deleted: Some(items), space_reclaimed })
}
