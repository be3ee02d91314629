//! Removing all containers that do not run.

use super::list::parse_until;
use super::requests::RemoveOptions;
use super::{Containers, Phase, lifecycle};
use crate::error::Result;
use crate::filters::Filters;
use crate::models::ContainerPruneResponse;

/// Removes containers that do not run; one that cannot be removed is left.
pub(super) async fn prune(
    containers: &Containers,
    filters: &Filters,
) -> Result<ContainerPruneResponse> {
    filters.check(&["label", "label!", "until"])?;
    let until = parse_until(filters)?;
    let mut deleted = Vec::new();
    let mut bytes = 0_u64;
    for view in containers.0.table.views() {
        let record = &view.record;
        let idle = matches!(record.state.phase, Phase::Created | Phase::Exited | Phase::Dead);
        let old = until.as_ref().is_none_or(|until| record.created_at < *until);
        let labels = filters.labels(&record.config.labels.clone().unwrap_or_default());
        if !(idle && old && labels) {
            continue;
        }
        let key = lifecycle::snapshot_key(&record.id)?;
        let usage = super::blocking_with(&containers.0, move |shared| {
            Ok(shared.storage.snapshots().usage(&key).map_or(0, |usage| usage.bytes))
        });
        let size = usage.await?;
        match containers.remove(&record.id, RemoveOptions::default()).await {
            Ok(()) => {
                bytes = bytes.saturating_add(size);
                deleted.push(record.id.clone());
            }
            Err(error) => tracing::warn!(container = %record.id, "prune: {}", error.report()),
        }
    }
    let space_reclaimed = i64::try_from(bytes).ok();
    Ok(ContainerPruneResponse { containers_deleted: Some(deleted), space_reclaimed })
}
