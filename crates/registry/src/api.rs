//! One request: who asks, what for, and the answer.

mod blobs;
mod lists;
mod manifests;
mod uploads;

use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, ORIGIN, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::Body;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::server::Shared;

pub(crate) use blobs::Source;
pub(crate) use manifests::{Found, find, store};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const JSON: &str = "application/json";

type Answer = Result<Response<Body>, Refusal>;

/// Answers a request.
pub(crate) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let mut response = match handle(shared, request).await {
        Ok(response) => response,
        Err(refusal) => refuse(&refusal, is_head),
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response
}

fn refuse(refusal: &Refusal, is_head: bool) -> Response<Body> {
    let body = refusal.body();
    let length = body.len();
    let mut response = Response::new(if is_head { Body::empty() } else { Body::of(body) });
    *response.status_mut() = refusal.status;
    response.headers_mut().extend(refusal.headers.clone());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    // Web pages may make a browser call services of its machine; registry clients never send this.
    if request.headers().contains_key(ORIGIN) {
        let message = "requests from web pages are not answered";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message));
    }
    authenticate(shared, request.headers()).await?;
    let (parts, body) = request.into_parts();
    let route = Route::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if !reads {
        check_writable(shared)?;
    }
    let (method, headers) = (parts.method, parts.headers);
    match route {
        Route::Base => Ok(json(StatusCode::OK, &serde_json::json!({}))),
        Route::Catalog(page) => lists::catalog(shared, page).await,
        Route::Tags { name, page } => lists::tags(shared, name, page).await,
        Route::Referrers { name, subject, artifact_type, page } => {
            lists::referrers(shared, name, subject, artifact_type, page).await
        }
        Route::Manifest { name, version } => match method {
            Method::PUT => manifests::put(shared, name, version, &headers, body).await,
            Method::DELETE => manifests::delete(shared, name, version).await,
            _ => manifests::get(shared, name, version, &headers, &method).await,
        },
        Route::Blob { name, digest } => match method {
            Method::DELETE => blobs::delete(shared, name, digest).await,
            _ => blobs::get(shared, name, digest, &headers, &method).await,
        },
        Route::Uploads { name, mount, digest } => match (mount, digest) {
            (Some(mount), _) => uploads::mount(shared, name, mount).await,
            (None, Some(digest)) => uploads::whole(shared, name, digest, &headers, body).await,
            (None, None) => uploads::start(shared, name).await,
        },
        Route::Upload { name, id, digest } => match method {
            Method::PATCH => uploads::append(shared, name, id, &headers, body).await,
            Method::PUT => uploads::finish(shared, name, id, digest, &headers, body).await,
            Method::DELETE => uploads::cancel(shared, name, id).await,
            _ => uploads::status(shared, name, id).await,
        },
    }
}

async fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(users) = &shared.users else { return Ok(()) };
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(header) = header
        && users.accepts(header).await?
    {
        return Ok(());
    }
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "log in first");
    Err(refusal.with(WWW_AUTHENTICATE, "Basic realm=\"brig registry\""))
}

fn check_writable(shared: &Shared) -> Result<(), Refusal> {
    if shared.config.read_only {
        return Err(Refusal::unsupported("this registry is read-only"));
    }
    if shared.proxy.is_some() {
        return Err(Refusal::unsupported("this registry is a cache of another: push there"));
    }
    Ok(())
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::of(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// An answer without a body.
fn empty(status: StatusCode, headers: &[(HeaderName, String)]) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).ok();
        response.headers_mut().extend(value.map(|value| (name.clone(), value)));
    }
    response
}

/// Whether the client has the content already, by the digest that it names.
fn is_known(headers: &HeaderMap, digest: &brig_images::Digest) -> bool {
    let names = headers.get(http::header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let quoted = format!("\"{digest}\"");
    names.is_some_and(|names| names.split(',').any(|name| name.trim() == quoted))
}
