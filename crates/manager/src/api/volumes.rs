//! Endpoints of volumes.

use axum::body::Body;
use axum::extract::State;
use brig_engine_api::models::VolumeCreateRequest;
use brig_engine_api::query;
use http::StatusCode;

use super::App;
use super::legacy;
use super::request::{Json, Name, Params, with_upload};
use super::respond::{Answer, bytes, complete, empty, json, json_response};

pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<query::ListVolumes>,
) -> Answer {
    let mut list = app.engine.volumes.list(legacy::filters(query.filters)).await?;
    list.volumes.get_or_insert_default();
    list.warnings.get_or_insert_default();
    json(&list)
}

pub(super) async fn inspect(State(app): State<App>, Name(name): Name) -> Answer {
    json(&app.engine.volumes.inspect(&name).await?)
}

pub(super) async fn create(
    State(app): State<App>,
    Json(body): Json<VolumeCreateRequest>,
) -> Answer {
    let created = complete(async move { app.engine.volumes.create(body).await }).await?;
    Ok(json_response(StatusCode::CREATED, &created))
}

pub(super) async fn remove(
    State(app): State<App>,
    Name(name): Name,
    Params(query): Params<query::RemoveVolume>,
) -> Answer {
    complete(async move { app.engine.volumes.remove(&name, query.force).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn export(
    State(app): State<App>,
    Name(name): Name,
    Params(query): Params<query::ExportVolume>,
) -> Answer {
    let archive = app.engine.volumes.export(&name, &query.compression).await?;
    Ok(bytes("application/x-tar", archive))
}

pub(super) async fn import(State(app): State<App>, Name(name): Name, body: Body) -> Answer {
    with_upload(body, |archive| async move {
        complete(async move { app.engine.volumes.import(&name, archive).await }).await?;
        empty(StatusCode::NO_CONTENT)
    })
    .await
}

pub(super) async fn prune(State(app): State<App>, Params(query): Params<query::Prune>) -> Answer {
    let filters = legacy::filters(query.filters);
    let mut pruned = complete(async move { app.engine.volumes.prune(filters).await }).await?;
    pruned.volumes_deleted.get_or_insert_default();
    pruned.space_reclaimed.get_or_insert_default();
    json(&pruned)
}
