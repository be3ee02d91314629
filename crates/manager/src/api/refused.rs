//! Endpoints of the Engine API that are not built: refused by name, never mistaken for a wrong path.

use axum::Router;
use axum::routing::{any, post, put};

use http::{Method, StatusCode};

use super::App;
use super::failure::Failure;
use super::request::Name;
use super::respond::{Answer, json};

/// Paths, and what they belong to.
const NOT_BUILT: [(&str, &str); 22] = [
    ("/build", "the image builder"),
    ("/build/cancel", "the image builder"),
    ("/session", "the image builder's session"),
    ("/grpc", "the image builder's session"),
    ("/images/search", "searching a registry"),
    ("/containers/{id}/attach/ws", "attaching over a WebSocket"),
    ("/containers/{id}/checkpoints", "checkpointing"),
    ("/containers/{id}/checkpoints/{checkpoint}", "checkpointing"),
    ("/plugins", "the plugin system"),
    ("/swarm", "swarm mode"),
    ("/swarm/{*path}", "swarm mode"),
    ("/nodes", "swarm mode"),
    ("/nodes/{*path}", "swarm mode"),
    ("/services", "swarm mode"),
    ("/services/{*path}", "swarm mode"),
    ("/tasks", "swarm mode"),
    ("/tasks/{*path}", "swarm mode"),
    ("/secrets", "swarm mode"),
    ("/secrets/{*path}", "swarm mode"),
    ("/configs", "swarm mode"),
    ("/configs/{*path}", "swarm mode"),
    ("/debug/{*path}", "remote debugging"),
];

/// The routes of what is not built.
pub(super) fn routes() -> Router<App> {
    let routes = NOT_BUILT.iter().fold(Router::new(), |routes, (path, what)| {
        routes.route(path, any(async || Failure::not_built(what)))
    });
    routes
        .route("/plugins/{*path}", any(plugin))
        .route("/volumes/{name}", put(async || Failure::not_built("updating a cluster volume")))
        .route("/build/prune", post(build_prune))
}

/// There is no plugin of any name: `docker inspect` asks for one after everything else, and takes any other refusal for
/// the reason why it found nothing.
async fn plugin(method: Method, Name(path): Name) -> Failure {
    match path.strip_suffix("/json").filter(|_| method == Method::GET) {
        Some(name) => Failure::new(StatusCode::NOT_FOUND, format!("plugin \"{name}\" not found")),
        None => Failure::not_built("the plugin system"),
    }
}

/// Without a builder there is no build cache, and `docker system prune` asks for this in passing.
async fn build_prune() -> Answer {
    json(&serde_json::json!({ "CachesDeleted": [], "SpaceReclaimed": 0 }))
}
