//! Endpoints of networks.

use axum::extract::State;
use brig_engine_api::models::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use brig_engine_api::query;
use http::StatusCode;

use super::App;
use super::legacy;
use super::request::{Json, Name, Params};
use super::respond::{Answer, complete, empty, json, json_response};

pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<query::ListNetworks>,
) -> Answer {
    json(&app.engine.networks.list(legacy::filters(query.filters)).await?)
}

pub(super) async fn inspect(State(app): State<App>, Name(id): Name) -> Answer {
    json(&app.engine.networks.inspect(&id).await?)
}

pub(super) async fn create(
    State(app): State<App>,
    Json(body): Json<NetworkCreateRequest>,
) -> Answer {
    let created = complete(async move { app.engine.networks.create(body).await }).await?;
    Ok(json_response(StatusCode::CREATED, &created))
}

pub(super) async fn remove(State(app): State<App>, Name(id): Name) -> Answer {
    complete(async move { app.engine.networks.remove(&id).await }).await?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn connect(
    State(app): State<App>,
    Name(id): Name,
    Json(body): Json<NetworkConnectRequest>,
) -> Answer {
    complete(async move { app.engine.networks.connect(&id, body).await }).await?;
    empty(StatusCode::OK)
}

pub(super) async fn disconnect(
    State(app): State<App>,
    Name(id): Name,
    Json(body): Json<NetworkDisconnectRequest>,
) -> Answer {
    complete(async move { app.engine.networks.disconnect(&id, body).await }).await?;
    empty(StatusCode::OK)
}

pub(super) async fn prune(State(app): State<App>, Params(query): Params<query::Prune>) -> Answer {
    let filters = legacy::filters(query.filters);
    let mut pruned = complete(async move { app.engine.networks.prune(filters).await }).await?;
    pruned.networks_deleted.get_or_insert_default();
    json(&pruned)
}
