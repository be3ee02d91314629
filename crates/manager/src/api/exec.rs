//! Endpoints of further processes in a container.

use axum::extract::{Request, State};
use brig_engine_api::models::{ExecConfig, ExecStartConfig};
use brig_engine_api::query;
use brig_engine_api::types::IdResponse;
use http::StatusCode;

use super::App;
use super::containers::terminal_size;
use super::detach::DetachKeys;
use super::hijack::hijack;
use super::request::{Json, Name, Params, Version, parse_json};
use super::respond::{Answer, complete, empty, json, json_response};
use crate::{ExecStart, ExecStarted, TerminalSize};

pub(super) async fn create(
    State(app): State<App>,
    Name(id): Name,
    Json(config): Json<ExecConfig>,
) -> Answer {
    DetachKeys::parse(config.detach_keys.as_deref())?;
    let id = complete(async move { app.engine.containers.exec_create(&id, config).await }).await?;
    Ok(json_response(StatusCode::CREATED, &IdResponse { id }))
}

pub(super) async fn start(
    State(app): State<App>,
    Name(id): Name,
    Version(version): Version,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let config: ExecStartConfig = parse_json(&parts.headers, body).await?.unwrap_or_default();
    let prepared = app.engine.containers.exec_inspect(&id).await?;
    let detach = DetachKeys::parse(prepared.detach_keys.as_deref())?;
    let start = ExecStart {
        detach: config.detach.unwrap_or_default(),
        console_size: console_size(config.console_size.as_deref()),
    };
    let engine = app.engine.clone();
    match complete(async move { engine.containers.exec_start(&id, start).await }).await? {
        ExecStarted::Detached => empty(StatusCode::OK),
        ExecStarted::Attached(stream) => Ok(hijack(&app.ending, parts, stream, detach, version)),
    }
}

/// The size in a body: height, then width.
fn console_size(size: Option<&[usize]>) -> Option<TerminalSize> {
    let [height, width] = size? else { return None };
    Some(TerminalSize { width: u16::try_from(*width).ok()?, height: u16::try_from(*height).ok()? })
}

pub(super) async fn resize(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<query::Resize>,
) -> Answer {
    app.engine.containers.exec_resize(&id, terminal_size(&query)).await?;
    empty(StatusCode::OK)
}

pub(super) async fn inspect(State(app): State<App>, Name(id): Name) -> Answer {
    json(&app.engine.containers.exec_inspect(&id).await?)
}
