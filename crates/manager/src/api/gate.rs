//! What every request passes before it is routed: where it may come from, the version prefix, and the headers that
//! every answer carries.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use brig_engine_api::{API_VERSION, ApiVersion, MIN_API_VERSION};
use futures_util::FutureExt as _;
use http::header::{HOST, ORIGIN, SERVER};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::failure::Failure;

/// What kind of listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file system's permissions decided who may connect.
    Unix,
    /// Anything that reaches the port, web pages in a browser included.
    Tcp,
}

/// The way in.
pub(super) struct Gate {
    router: Router,
}

impl Gate {
    /// The way to `router`, which sees paths without their version.
    pub(super) fn new(router: Router) -> Self {
        Self { router }
    }

    /// Answers one request.
    pub(super) async fn pass(&self, request: Request<Incoming>, origin: Origin) -> Response {
        let begin = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        // A bug in one handler must not take the connection, or the daemon, with it.
        let answered = AssertUnwindSafe(self.route(request.map(Body::new), origin)).catch_unwind();
        let mut response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => failure.into_response(),
            Err(_) => {
                tracing::error!(%method, path, "a handler panicked");
                let message = "the daemon failed unexpectedly; its log says more";
                Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
            }
        };
        add_headers(&mut response);
        let status = response.status().as_u16();
        tracing::debug!(%method, path, status, elapsed = ?begin.elapsed(), "answered");
        response
    }

    async fn route(&self, mut request: Request<Body>, origin: Origin) -> Result<Response, Failure> {
        if origin == Origin::Tcp {
            refuse_browsers(&request)?;
        }
        let version = strip_version(&mut request)?;
        request.extensions_mut().insert(version);
        // The router cannot fail.
        match TowerToHyperService::new(self.router.clone()).call(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}

/// Refuses what a web page could make a browser send to a TCP port: requests of another origin, and requests to a
/// name that DNS may have rebound to this machine.
fn refuse_browsers(request: &Request<Body>) -> Result<(), Failure> {
    let forbidden = |message: &str| Err(Failure::new(StatusCode::FORBIDDEN, message));
    if request.headers().contains_key(ORIGIN) {
        return forbidden("requests from web pages are not served");
    }
    let authority = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = authority.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let Some(authority) = authority else {
        return forbidden("the Host header does not name a host");
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let literal = host.parse::<std::net::IpAddr>().is_ok();
    if literal || host.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    forbidden("over TCP the daemon answers only to its address or to localhost, not to a name")
}

/// Takes `/v1.51` off the path. Without it the request is in the newest version.
fn strip_version(request: &mut Request<Body>) -> Result<ApiVersion, Failure> {
    let path = request.uri().path();
    let Some((version, rest)) = split_version(path) else { return Ok(API_VERSION) };
    if version < MIN_API_VERSION {
        return Err(Failure::invalid(format!(
            "client version {version} is too old. Minimum supported API version is \
             {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > API_VERSION {
        return Err(Failure::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    let target = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    // What follows the prefix begins with a slash and was part of a valid target.
    let target = PathAndQuery::try_from(target)
        .map_err(|_| Failure::invalid("the request's target is malformed"))?;
    *request.uri_mut() = Uri::from(target);
    Ok(version)
}

fn split_version(path: &str) -> Option<(ApiVersion, &str)> {
    let after = path.strip_prefix("/v")?;
    let slash = after.find('/')?;
    Some((after[..slash].parse().ok()?, &after[slash..]))
}

fn add_headers(response: &mut Response) {
    let headers = response.headers_mut();
    let version = API_VERSION.to_string();
    if let Ok(version) = HeaderValue::from_str(&version) {
        headers.insert(HeaderName::from_static("api-version"), version);
    }
    let fixed = [
        (HeaderName::from_static("docker-experimental"), "false"),
        (HeaderName::from_static("ostype"), "linux"),
        (SERVER, concat!("Brig/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(HeaderName, &str)]) -> Request<Body> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn version_prefixes_are_stripped_within_bounds() {
        for (target, version, rest) in [
            ("/v1.24/info", "1.24", "/info"),
            ("/v1.51/images/a%2Fb/json?x=1", "1.51", "/images/a%2Fb/json?x=1"),
            ("/info?a=b", "1.51", "/info?a=b"),
            ("/version", "1.51", "/version"),
            ("/v1/info", "1.51", "/v1/info"),
            ("/v1.30", "1.51", "/v1.30"),
        ] {
            let mut request = request(target, &[]);
            assert_eq!(strip_version(&mut request).unwrap().to_string(), version, "{target}");
            assert_eq!(request.uri().to_string(), rest);
        }
        for (target, word) in [("/v1.23/info", "too old"), ("/v1.99/info", "too new")] {
            let failure = strip_version(&mut request(target, &[])).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST);
            assert!(failure.message.contains(word), "{}", failure.message);
        }
    }

    #[test]
    fn browsers_and_rebound_names_are_refused_over_tcp() {
        let verdict = |headers: &[(HeaderName, &str)]| refuse_browsers(&request("/", headers));
        for host in ["127.0.0.1:2375", "[::1]:2375", "localhost", "LOCALHOST:1", "10.1.2.3"] {
            assert!(verdict(&[(HOST, host)]).is_ok(), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:2375", "", "1.2.3.4.evil"] {
            assert!(verdict(&[(HOST, host)]).is_err(), "{host}");
        }
        assert!(verdict(&[]).is_err());
        assert!(verdict(&[(HOST, "127.0.0.1"), (ORIGIN, "http://127.0.0.1")]).is_err());
    }
}
