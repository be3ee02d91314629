//! Endpoints of containers.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use brig_engine_api::models::{
    ContainerCreateBody, ContainerUpdateBody, ContainerUpdateResponse, ContainerWaitExitError,
    ContainerWaitResponse,
};
use brig_engine_api::path_stat::{PATH_STAT_HEADER, PathStat};
use brig_engine_api::query;
use brig_engine_api::query::UnixTime;
use brig_engine_api::restart::Restarting;
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode};

use super::App;
use super::detach::DetachKeys;
use super::failure::Failure;
use super::hijack::{content_type, hijack};
use super::legacy;
use super::request::{Json, Name, Params, Version, with_upload};
use super::respond::{
    Answer, bytes, complete, empty, endless_bytes, endless_lines, json, json_response,
};
use crate::{
    ArchivePut, AttachRequest, CreateContainer, ListContainers, LogsRequest, Outcome,
    RemoveOptions, StatsRequest, StopOptions, TerminalSize, WaitCondition,
};

pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<query::ListContainers>,
) -> Answer {
    let request = ListContainers {
        all: query.all,
        // Zero and below are no limit, as clients send them for "not given".
        limit: query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
        size: query.size,
        filters: legacy::filters(query.filters),
    };
    json(&app.engine.containers.list(request).await?)
}

pub(super) async fn create(
    State(app): State<App>,
    Params(query): Params<query::CreateContainer>,
    Json(Restarting { body, on_unhealthy }): Json<Restarting<ContainerCreateBody>>,
) -> Answer {
    let query::CreateContainer { name, platform } = query;
    let request = CreateContainer { name, platform, body, on_unhealthy };
    let created = complete(async move { app.engine.containers.create(request).await }).await?;
    Ok(json_response(StatusCode::CREATED, &created))
}

pub(super) async fn prune(State(app): State<App>, Params(query): Params<query::Prune>) -> Answer {
    let filters = legacy::filters(query.filters);
    let mut pruned = complete(async move { app.engine.containers.prune(filters).await }).await?;
    pruned.containers_deleted.get_or_insert_default();
    pruned.space_reclaimed.get_or_insert_default();
    json(&pruned)
}

pub(super) async fn inspect(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::InspectContainer>,
) -> Answer {
    let container = app.engine.containers.inspect(&id, query.size).await?;
    let container = legacy::container(&container).map_err(|error| {
        let message = format!("describe container {id}: {error}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    json(&container)
}

pub(super) async fn remove(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::RemoveContainer>,
) -> Answer {
    if query.link {
        return Err(Failure::not_built("removing a link between containers"));
    }
    let options = RemoveOptions { force: query.force, volumes: query.volumes };
    complete(async move { app.engine.containers.remove(&id, options).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::StartContainer>,
) -> Answer {
    if query.checkpoint.is_some() {
        return Err(Failure::not_built("starting from a checkpoint"));
    }
    let outcome = complete(async move { app.engine.containers.start(&id).await }).await?;
    empty(outcome_status(outcome))
}

pub(super) async fn stop(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::StopContainer>,
) -> Answer {
    let options = stop_options(query);
    let outcome = complete(async move { app.engine.containers.stop(&id, options).await }).await?;
    empty(outcome_status(outcome))
}

pub(super) async fn restart(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::StopContainer>,
) -> Answer {
    let options = stop_options(query);
    complete(async move { app.engine.containers.restart(&id, options).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

fn stop_options(query: query::StopContainer) -> StopOptions {
    StopOptions { timeout_seconds: query.timeout, signal: query.signal }
}

fn outcome_status(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Changed => StatusCode::NO_CONTENT,
        Outcome::Unchanged => StatusCode::NOT_MODIFIED,
    }
}

pub(super) async fn kill(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::KillContainer>,
) -> Answer {
    complete(async move { app.engine.containers.kill(&id, query.signal.as_deref()).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(State(app): State<App>, Name(id): Name) -> Answer {
    complete(async move { app.engine.containers.pause(&id).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(State(app): State<App>, Name(id): Name) -> Answer {
    complete(async move { app.engine.containers.unpause(&id).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn rename(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::RenameContainer>,
) -> Answer {
    complete(async move { app.engine.containers.rename(&id, &query.name).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn update(
    State(app): State<App>,
    Name(id): Name,
    Json(body): Json<Restarting<ContainerUpdateBody>>,
) -> Answer {
    let updated = complete(async move { app.engine.containers.update(&id, body).await }).await?;
    let warnings = Some(updated.warnings.unwrap_or_default());
    json(&ContainerUpdateResponse { warnings })
}

/// The head goes out once the wait is registered: clients start the container when they have it, and must not miss
/// its end.
pub(super) async fn wait(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::WaitContainer>,
) -> Answer {
    let condition = WaitCondition::parse(query.condition.as_deref().unwrap_or_default())?;
    let wait = app.engine.containers.wait(&id, condition).await?;
    let status = async move {
        let failed = |error: crate::Error| ContainerWaitResponse {
            status_code: -1,
            error: Some(ContainerWaitExitError { message: Some(error.report()) }),
        };
        Ok(wait.await.unwrap_or_else(failed))
    };
    Ok(endless_lines(&app.ending, stream::once(status)))
}

pub(super) async fn logs(
    State(app): State<App>,
    Name(id): Name,
    Version(version): Version,
    Params(query): Params<query::ContainerLogs>,
) -> Answer {
    if !query.stdout && !query.stderr {
        let message = "Bad parameters: you must choose at least one stream";
        return Err(Failure::invalid(message));
    }
    let request = LogsRequest {
        follow: query.follow,
        stdout: query.stdout,
        stderr: query.stderr,
        since_ns: query.since.map(UnixTime::nanoseconds_since_epoch),
        until_ns: query.until.map(UnixTime::nanoseconds_since_epoch),
        timestamps: query.timestamps,
        details: query.details,
        // Docker takes what is not a number, `all` among it, for everything.
        tail: query.tail.and_then(|tail| tail.parse().ok()),
    };
    let logs = app.engine.containers.logs(&id, request).await?;
    Ok(endless_bytes(&app.ending, content_type(logs.tty, version), logs.output))
}

pub(super) async fn attach(
    State(app): State<App>,
    Name(id): Name,
    Version(version): Version,
    Params(query): Params<query::AttachContainer>,
    request: Request,
) -> Answer {
    let detach = DetachKeys::parse(query.detach_keys.as_deref())?;
    let attach = AttachRequest {
        stdin: query.stdin,
        stdout: query.stdout,
        stderr: query.stderr,
        logs: query.logs,
        stream: query.stream,
    };
    let stream = app.engine.containers.attach(&id, attach).await?;
    let (parts, _) = request.into_parts();
    Ok(hijack(&app.ending, parts, stream, detach, version))
}

pub(super) async fn resize(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::Resize>,
) -> Answer {
    app.engine.containers.resize(&id, terminal_size(&query)).await?;
    empty(StatusCode::OK)
}

pub(super) fn terminal_size(query: &query::Resize) -> TerminalSize {
    TerminalSize { width: query.width, height: query.height }
}

pub(super) async fn top(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::ContainerTop>,
) -> Answer {
    json(&app.engine.containers.top(&id, query.ps_args.as_deref()).await?)
}

pub(super) async fn stats(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::ContainerStats>,
) -> Answer {
    let stream = query.stream.unwrap_or(true);
    if stream && query.one_shot {
        return Err(Failure::invalid("cannot have stream=true and one-shot=true"));
    }
    let request = StatsRequest { stream, one_shot: query.one_shot };
    let samples = app.engine.containers.stats(&id, request).await?;
    Ok(endless_lines(&app.ending, samples))
}

pub(super) async fn changes(State(app): State<App>, Name(id): Name) -> Answer {
    json(&app.engine.containers.changes(&id).await?)
}

pub(super) async fn export(State(app): State<App>, Name(id): Name) -> Answer {
    Ok(bytes("application/octet-stream", app.engine.containers.export(&id).await?))
}

pub(super) async fn archive_stat(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::ContainerArchive>,
) -> Answer {
    expect_path(&query)?;
    let stat = app.engine.containers.archive_stat(&id, &query.path).await?;
    Ok(with_stat(StatusCode::OK.into_response(), stat))
}

pub(super) async fn archive_get(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::ContainerArchive>,
) -> Answer {
    expect_path(&query)?;
    let (stat, archive) = app.engine.containers.archive_get(&id, &query.path).await?;
    Ok(with_stat(bytes("application/x-tar", archive), stat))
}

pub(super) async fn archive_put(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::ContainerArchive>,
    body: Body,
) -> Answer {
    expect_path(&query)?;
    let request = ArchivePut {
        path: query.path,
        no_overwrite_dir_non_dir: query.no_overwrite_dir_non_dir,
        copy_uid_gid: query.copy_uid_gid,
    };
    with_upload(body, |archive| async move {
        app.engine.containers.archive_put(&id, request, archive).await?;
        empty(StatusCode::OK)
    })
    .await
}

fn expect_path(query: &query::ContainerArchive) -> Result<(), Failure> {
    if query.path.is_empty() {
        return Err(Failure::invalid("missing parameter: path"));
    }
    Ok(())
}

fn with_stat(mut response: Response, stat: crate::PathStat) -> Response {
    let crate::PathStat { name, size, mode, mtime, link_target } = stat;
    let header = PathStat { name, size, mode, mtime, link_target }.encode();
    // Base64 is a valid header value.
    if let Ok(value) = HeaderValue::from_str(&header) {
        response.headers_mut().insert(HeaderName::from_static(PATH_STAT_HEADER), value);
    }
    response
}
