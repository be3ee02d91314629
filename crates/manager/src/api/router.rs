//! Every endpoint served, one line each.

use axum::Router;
use axum::routing::{any, delete, get, head, post, put};
use http::StatusCode;

use super::failure::Failure;
use super::{App, containers, exec, images, networks, refused, system, volumes};

/// The router for `app`. Paths come without their version prefix.
pub(super) fn new(app: App) -> Router {
    Router::new()
        .merge(system_routes())
        .merge(container_routes())
        .merge(image_routes())
        .merge(network_and_volume_routes())
        .merge(refused::routes())
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "page not found"))
        .method_not_allowed_fallback(async || {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .with_state(app)
}

fn system_routes() -> Router<App> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/df", get(system::disk_usage))
        .route("/system/df/explain", get(system::explain))
        .route("/system/check", get(system::check).post(system::repair))
        .route("/auth", post(system::auth))
}

fn container_routes() -> Router<App> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/logs", get(containers::logs))
        .route("/containers/{id}/attach", post(containers::attach))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/stats", get(containers::stats))
        .route("/containers/{id}/changes", get(containers::changes))
        .route("/containers/{id}/export", get(containers::export))
        .route("/containers/{id}/archive", archive_methods())
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
}

fn archive_methods() -> axum::routing::MethodRouter<App> {
    head(containers::archive_stat).get(containers::archive_get).merge(put(containers::archive_put))
}

/// Names of images have slashes, so what follows the name is split off by the handlers.
fn image_routes() -> Router<App> {
    Router::new()
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route("/commit", post(images::commit))
        .route("/images/load", post(images::load))
        .route("/images/prune", post(images::prune))
        .route("/images/get", get(images::save))
        .route("/images/{*path}", any(images::by_name))
        .route("/distribution/{*path}", get(images::distribution))
}

fn network_and_volume_routes() -> Router<App> {
    Router::new()
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{id}/connect", post(networks::connect))
        .route("/networks/{id}/disconnect", post(networks::disconnect))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        // Only Brig has these two.
        .route("/volumes/{name}/export", get(volumes::export))
        .route("/volumes/{name}/import", post(volumes::import))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
}
