//! Files of a container: copying in and out, what it changed, all of it. Nothing of the container is run.

use std::sync::Arc;

use brig_storage::{ChangeKind, Tree, WriteOptions};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::requests::{ArchivePut, PathStat};
use super::spec::MOUNT_POINTS;
use super::{Shared, View, blocking_with, exec, lifecycle, resolve_user, stopped_tree};
use crate::error::{Error, Result};
use crate::models::{ChangeType, FilesystemChange};
use crate::stream::{self, ByteStream};

fn tree(shared: &Shared, view: &View) -> Result<Tree> {
    let state = &view.record.state;
    if state.phase.is_alive() && state.pid != 0 {
        exec::tree_of(state.pid)
    } else {
        stopped_tree(shared, &view.record)
    }
}

fn view(shared: &Shared, container: &str) -> Result<Arc<View>> {
    Ok(shared.table.find(container)?.view())
}

/// Describes a file.
pub(super) async fn stat(shared: &Arc<Shared>, container: &str, path: &str) -> Result<PathStat> {
    let (view, path) = (view(shared, container)?, path.to_owned());
    let asked = container.to_owned();
    blocking_with(shared, move |shared| stat_in(&tree(shared, &view)?, &asked, &path)).await
}

/// `container` is what the request called it.
fn stat_in(tree: &Tree, container: &str, path: &str) -> Result<PathStat> {
    let stat = tree.stat(path).map_err(|source| match source.kind() {
        brig_storage::ErrorKind::NotFound => {
            Error::not_found(format!("Could not find the file {path} in container {container}"))
        }
        _ => Error::from(source),
    })?;
    let modified = OffsetDateTime::from_unix_timestamp(stat.modified_seconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .replace_nanosecond(stat.modified_nanoseconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Ok(PathStat {
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: stat.go_file_mode(),
        mtime: modified.format(&Rfc3339).unwrap_or_default(),
        link_target: stat
            .link_target
            .map(|target| target.display().to_string())
            .unwrap_or_default(),
        name: stat.name,
    })
}

/// A file or directory as an archive.
pub(super) async fn get(
    shared: &Arc<Shared>,
    container: &str,
    path: &str,
) -> Result<(PathStat, ByteStream)> {
    let (view, path) = (view(shared, container)?, path.to_owned());
    let asked = container.to_owned();
    let (tree, stat, path) = blocking_with(shared, move |shared| {
        let tree = tree(shared, &view)?;
        let stat = stat_in(&tree, &asked, &path)?;
        Ok((tree, stat, path))
    })
    .await?;
    let archive =
        stream::written(move |mut writer| tree.read_tar(&path, &mut writer).map_err(Error::from));
    Ok((stat, archive))
}

/// Unpacks an archive into a directory.
pub(super) async fn put(
    shared: &Arc<Shared>,
    container: &str,
    request: ArchivePut,
    body: ByteStream,
) -> Result<()> {
    let view = view(shared, container)?;
    if view.record.host_config.readonly_rootfs == Some(true) && view.record.mounts.is_empty() {
        return Err(Error::new(crate::ErrorKind::Denied, "container rootfs is marked read-only"));
    }
    let (asked, mut reader) = (container.to_owned(), stream::reader(body));
    blocking_with(shared, move |shared| {
        let tree = tree(shared, &view)?;
        let named = view.record.config.user.as_deref().is_some_and(|user| !user.is_empty());
        let owner = match request.copy_uid_gid && named {
            true => Some(resolve_user(shared, &view.record)?).map(|user| (user.uid, user.gid)),
            false => None,
        };
        let mut options = WriteOptions::default();
        options.keep_kind = request.no_overwrite_dir_non_dir;
        options.owner = owner;
        let stat = stat_in(&tree, &asked, &request.path)?;
        let directory = stat.mode & (1 << 31) != 0 || !stat.link_target.is_empty();
        if !directory {
            return Err(Error::invalid(format!(
                "extraction point {} is not a directory",
                request.path
            )));
        }
        tree.write_tar(&request.path, &mut reader, &options)?;
        Ok(())
    })
    .await
}

/// What a container changed.
pub(super) async fn changes(
    shared: &Arc<Shared>,
    container: &str,
) -> Result<Vec<FilesystemChange>> {
    let view = view(shared, container)?;
    blocking_with(shared, move |shared| {
        let key = lifecycle::snapshot_key(&view.record.id)?;
        let changes = shared.storage.snapshots().changes(&key, MOUNT_POINTS)?;
        Ok(changes
            .into_iter()
            .map(|change| FilesystemChange {
                path: change.path.display().to_string(),
                kind: match change.kind {
                    ChangeKind::Modified => ChangeType::_0,
                    ChangeKind::Added => ChangeType::_1,
                    ChangeKind::Deleted => ChangeType::_2,
                },
            })
            .collect())
    })
    .await
}

/// A container's whole file system.
pub(super) async fn export(shared: &Arc<Shared>, container: &str) -> Result<ByteStream> {
    let view = view(shared, container)?;
    let tree = blocking_with(shared, move |shared| tree(shared, &view)).await?;
    Ok(stream::written(move |mut writer| tree.export(&mut writer).map_err(Error::from)))
}
