//! Endpoints of images.

use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use brig_engine_api::query;
use brig_engine_api::query::Query;
use brig_engine_api::types::IdResponse;
use http::request::Parts;
use http::{Method, StatusCode};

use super::App;
use super::failure::Failure;
use super::legacy;
use super::request::{Auth, Name, Params, parse_json, with_upload};
use super::respond::{Answer, bytes, complete, empty, json, json_response, progress};
use crate::models::ContainerConfig;
use crate::{
    CommitRequest, ImportRequest, ImportSource, ListImages, PullRequest, PushRequest, RemoveImage,
};

pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<query::ListImages>,
) -> Answer {
    let request = ListImages {
        all: query.all,
        filters: legacy::filters(query.filters),
        shared_size: query.shared_size,
    };
    json(&app.engine.images.list(request).await?)
}

/// Pull, or import.
pub(super) async fn create(
    State(app): State<App>,
    Params(query): Params<query::CreateImage>,
    Auth(auth): Auth,
    body: Body,
) -> Answer {
    if let Some(source) = query.from_src {
        return with_upload(body, |archive| async move {
            let request = ImportRequest {
                source: match source.as_str() {
                    "-" => ImportSource::Archive(archive),
                    _ => ImportSource::Url(source),
                },
                reference: join_tag(query.repo.unwrap_or_default(), query.tag.as_deref()),
                message: query.message.unwrap_or_default(),
                changes: query.changes,
                platform: query.platform,
            };
            progress(app.engine.images.import(request).await?).await
        })
        .await;
    }
    let Some(image) = query.from_image else {
        return Err(Failure::invalid("missing parameter: fromImage"));
    };
    let reference = join_tag(image, query.tag.as_deref());
    let all_tags = !has_tag(&reference);
    let request = PullRequest { reference, platform: query.platform, auth, all_tags };
    progress(app.engine.images.pull(request).await?).await
}

/// Makes an image of a container.
pub(super) async fn commit(
    State(app): State<App>,
    Params(query): Params<query::CommitContainer>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    // Clients send `null` when they change nothing.
    let config: Option<Option<ContainerConfig>> = parse_json(&parts.headers, body).await?;
    let request = CommitRequest {
        container: query.container.unwrap_or_default(),
        reference: join_tag(query.repo.unwrap_or_default(), query.tag.as_deref()),
        comment: query.comment.unwrap_or_default(),
        author: query.author.unwrap_or_default(),
        pause: query.pause.unwrap_or(true),
        changes: query.changes,
        config: config.flatten(),
    };
    let id = complete(async move { app.engine.containers.commit(request).await }).await?;
    Ok(json_response(StatusCode::CREATED, &IdResponse { id }))
}

pub(super) async fn load(
    State(app): State<App>,
    Params(query): Params<query::LoadImages>,
    body: Body,
) -> Answer {
    if query.platform.is_some() {
        return Err(Failure::not_built("loading one platform of an archive"));
    }
    with_upload(
        body,
        |archive| async move { progress(app.engine.images.load(archive).await?).await },
    )
    .await
}

pub(super) async fn prune(State(app): State<App>, Params(query): Params<query::Prune>) -> Answer {
    let filters = legacy::filters(query.filters);
    let mut pruned = complete(async move { app.engine.images.prune(filters).await }).await?;
    pruned.images_deleted.get_or_insert_default();
    pruned.space_reclaimed.get_or_insert_default();
    json(&pruned)
}

pub(super) async fn save(
    State(app): State<App>,
    Params(query): Params<query::SaveImages>,
) -> Answer {
    save_names(&app, query.names, query.platform.as_deref()).await
}

async fn save_names(app: &App, names: Vec<String>, platform: Option<&str>) -> Answer {
    let platform = one_platform(platform)?;
    if names.is_empty() {
        return Err(Failure::invalid("missing parameter: names"));
    }
    Ok(bytes("application/x-tar", app.engine.images.save(names, platform).await?))
}

/// One platform of a stored image: clients send an object of the image specification, people write `os/arch[/variant]`.
fn one_platform(text: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(text) = text.filter(|text| text.starts_with('{')) else {
        return Ok(text.map(str::to_owned));
    };
    let platform: brig_images::Platform = serde_json::from_str(text)
        .map_err(|error| Failure::invalid(format!("invalid platform {text}: {error}")))?;
    Ok(Some(platform.to_string()))
}

/// Everything beneath `/images/` whose path holds a name: names have slashes, so the router cannot tell.
pub(super) async fn by_name(State(app): State<App>, Name(path): Name, request: Request) -> Answer {
    let (mut parts, _) = request.into_parts();
    if parts.method == Method::DELETE {
        return remove(&app, path, &parts).await;
    }
    let Some((name, endpoint)) = path.rsplit_once('/') else { return Err(not_found()) };
    match (&parts.method, endpoint) {
        (&Method::GET, "json") => inspect(&app, name, &parts).await,
        (&Method::GET, "history") => json(&app.engine.images.history(name).await?),
        (&Method::GET, "get") => {
            let query: query::SaveImages = params(&parts)?;
            save_names(&app, vec![name.to_owned()], query.platform.as_deref()).await
        }
        (&Method::POST, "tag") => tag(&app, name, &parts).await,
        (&Method::POST, "push") => push(&app, name, &mut parts).await,
        (&Method::GET, "attestations") => Err(Failure::not_built("listing attestations")),
        _ => Err(not_found()),
    }
}

fn not_found() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "page not found")
}

fn params<Q: Query>(parts: &Parts) -> Result<Q, Failure> {
    Ok(Q::parse(parts.uri.query().unwrap_or_default())?)
}

async fn inspect(app: &App, name: &str, parts: &Parts) -> Answer {
    let query: query::InspectImage = params(parts)?;
    let platform = one_platform(query.platform.as_deref())?;
    json(&app.engine.images.inspect(name, platform).await?)
}

async fn remove(app: &App, name: String, parts: &Parts) -> Answer {
    let query: query::RemoveImage = params(parts)?;
    let options = RemoveImage { force: query.force, no_prune: query.no_prune };
    let engine = app.engine.clone();
    json(&complete(async move { engine.images.remove(&name, options).await }).await?)
}

async fn tag(app: &App, name: &str, parts: &Parts) -> Answer {
    let query: query::TagImage = params(parts)?;
    if query.repo.is_empty() {
        return Err(Failure::invalid("missing parameter: repo"));
    }
    let (engine, name) = (app.engine.clone(), name.to_owned());
    complete(async move { engine.images.tag(&name, &query.repo, query.tag.as_deref()).await })
        .await?;
    empty(StatusCode::CREATED)
}

async fn push(app: &App, name: &str, parts: &mut Parts) -> Answer {
    let query: query::PushImage = params(parts)?;
    let platform = one_platform(query.platform.as_deref())?;
    let Auth(auth) = Auth::from_request_parts(parts, &()).await?;
    let reference = join_tag(name.to_owned(), query.tag.as_deref());
    if !has_tag(&reference) {
        return Err(Failure::not_built("pushing all tags of a repository at once"));
    }
    progress(app.engine.images.push(PushRequest { reference, auth, platform }).await?).await
}

/// What a registry has; one day.
pub(super) async fn distribution() -> Answer {
    Err(Failure::not_built("asking a registry about an image without pulling it"))
}

/// `image` with a tag, or a digest, that came as a parameter of its own.
fn join_tag(image: String, tag: Option<&str>) -> String {
    match tag {
        _ if image.is_empty() => image,
        None => image,
        Some(digest) if digest.contains(':') => format!("{image}@{digest}"),
        Some(tag) => format!("{image}:{tag}"),
    }
}

/// Whether a reference says which image of its repository it means.
fn has_tag(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or_default();
    last.contains([':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_join_their_image() {
        assert_eq!(join_tag("a/b".into(), None), "a/b");
        assert_eq!(join_tag("a/b".into(), Some("1")), "a/b:1");
        assert_eq!(join_tag("a/b".into(), Some("sha256:00")), "a/b@sha256:00");
    }

    #[test]
    fn a_port_is_not_a_tag() {
        for tagged in ["a:1", "localhost:5000/a:1", "a@sha256:00", "h:1/a/b:c"] {
            assert!(has_tag(tagged), "{tagged}");
        }
        for bare in ["a", "localhost:5000/a", "h:1/a/b"] {
            assert!(!has_tag(bare), "{bare}");
        }
    }
}
