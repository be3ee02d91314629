//! Committing a container: its changes become a layer, its configuration that of a new image.

use std::sync::Arc;

use super::create::merge;
use super::{Phase, Request, Shared, lifecycle};
use crate::error::Result;
use crate::image::{Commit, apply_changes, named};
use crate::models::{ContainerConfig, ImageConfig};

/// How a container is to be committed.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// The image's name: `REPOSITORY[:TAG]`; none when empty.
    pub reference: String,
    /// Why, for the image's history.
    pub comment: String,
    /// Who.
    pub author: String,
    /// Freeze the container meanwhile, so that its files fit together.
    pub pause: bool,
    /// Docker's change instructions.
    pub changes: Vec<String>,
    /// Configuration that wins over the container's.
    pub config: Option<ContainerConfig>,
}

/// Commits a container and answers the image's id.
pub(super) async fn commit(shared: &Arc<Shared>, request: CommitRequest) -> Result<String> {
    let handle = shared.table.find(&request.container)?;
    let view = handle.view();
    let record = &view.record;
    let reference = named(&request.reference)?;
    let mut config = request.config.unwrap_or_default();
    apply_changes(&mut config, &record.config, &request.changes)?;
    let words = std::iter::once(&record.path).chain(&record.args).map(String::as_str);
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let name = reference.as_ref().map(ToString::to_string).unwrap_or_default();
    let commit = Commit {
        manifest: record.manifest.clone(),
        snapshot: lifecycle::snapshot_key(&record.id)?,
        mount_points: super::spec::MOUNT_POINTS,
        config: merge(config, of_container(&record.config))?,
        author: filled(request.author),
        comment: filled(request.comment.clone()),
        created_by: words.collect::<Vec<_>>().join(" "),
        reference,
    };
    let pause = request.pause && record.state.phase == Phase::Running;
    if pause {
        handle.ask(|reply| Request::Pause { reply }).await?;
    }
    let committed = shared.images.commit(commit).await;
    if pause {
        let resumed = handle.ask(|reply| Request::Unpause { reply }).await;
        // A container that was killed or resumed by another call meanwhile is not paused any more.
        if let Err(error) = resumed {
            tracing::debug!("resume container {}: {}", record.id, error.report());
        }
    }
    let id = committed?.id.to_string();
    let extra = [("comment", request.comment), ("imageID", id.clone()), ("imageRef", name)];
    super::publish(&shared.events, record, "commit", &extra);
    Ok(id)
}

/// What of a container's configuration an image can have.
fn of_container(config: &ContainerConfig) -> ImageConfig {
    let config = config.clone();
    ImageConfig {
        user: config.user,
        exposed_ports: config.exposed_ports,
        env: config.env,
        cmd: config.cmd,
        healthcheck: config.healthcheck,
        volumes: config.volumes,
        working_dir: config.working_dir,
        entrypoint: config.entrypoint,
        labels: config.labels,
        stop_signal: config.stop_signal,
        shell: config.shell,
        ..ImageConfig::default()
    }
}
