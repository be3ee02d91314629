//! Connections: one HTTP client a host, schemes, redirects, time limits. Knows nothing of authentication but where an
//! `Authorization` header may go.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, NoProxy, Response, StatusCode, Url};

use super::blocking::blocking;
use super::config::{Config, Endpoint, Security, host_of, is_loopback};
use super::tls;
use crate::{Error, ErrorKind, Result};

const REDIRECTS: usize = 10;
const CONNECT_TIME: Duration = Duration::from_secs(20);

/// Shared by all operations of a client.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) config: Config,
    clients: Mutex<HashMap<String, reqwest::Client>>,
    /// Hosts of [`Security::Insecure`] that turned out to speak plain HTTP (true) or TLS (false).
    plain: Mutex<HashMap<String, bool>>,
}

/// One request without a body that cannot be repeated.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Headers that stay with the first host.
    pub(super) own_headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), own_headers: HeaderMap::new(), body: None }
    }
}

impl Transport {
    pub(super) fn new(config: Config) -> Self {
        Self { config, clients: Mutex::default(), plain: Mutex::default() }
    }

    /// The endpoint's base URL with its scheme settled.
    pub(super) async fn base(&self, endpoint: &Endpoint) -> Result<Url> {
        if endpoint.security != Security::Insecure {
            return Ok(endpoint.base.clone());
        }
        let mut plain_base = endpoint.base.clone();
        // Cannot fail: http and https are both special schemes.
        let _ = plain_base.set_scheme("http");
        // Without an explicit port, `http` would mean another one; that is intended, as Docker does it.
        let known = lock(&self.plain).get(&endpoint.host).copied();
        let is_plain = match known {
            Some(known) => known,
            None => {
                let probe = endpoint.request(Method::GET, &endpoint.base, "")?;
                let is_plain = match self.send_once(&probe, None).await {
                    Ok(_) => false,
                    Err(_) => {
                        let probe = endpoint.request(Method::GET, &plain_base, "")?;
                        self.send_once(&probe, None).await?;
                        true
                    }
                };
                lock(&self.plain).insert(endpoint.host.clone(), is_plain);
                is_plain
            }
        };
        Ok(if is_plain { plain_base } else { endpoint.base.clone() })
    }

    /// Sends a request and follows redirects. `authorization` stays with the first host.
    pub(super) async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut request = request.clone();
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS {
            let response = self.send_once(&request, authorization).await?;
            let Some(target) = redirect(&request, &response)? else { return Ok(response) };
            if !same_origin(&request.url, &target) {
                authorization = None;
                request.own_headers.clear();
            }
            let secure = request.url.scheme() == "https";
            if secure && target.scheme() == "http" && !is_loopback(&host_of(&request.url)) {
                return Err(Error::new(
                    ErrorKind::Denied,
                    format!(
                        "follow redirect of {} to {}: it leaves TLS for plain HTTP",
                        host_of(&request.url),
                        host_of(&target)
                    ),
                ));
            }
            request.url = target;
        }
        let host = host_of(&request.url);
        Err(unreachable(&host, "it redirects in circles"))
    }

    async fn send_once(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let host = host_of(&request.url);
        let client = self.client(&host).await?;
        let mut builder = client.request(request.method.clone(), request.url.clone());
        builder = builder.headers(request.headers.clone()).headers(request.own_headers.clone());
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let sent = tokio::time::timeout(self.config.stall, builder.send()).await;
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(transport_error(&host, source)),
            Err(_) => Err(unreachable(&host, "it does not answer")),
        }
    }

    /// Sends a request whose body is a stream, without redirects and without a limit on the whole.
    pub(super) async fn upload(
        &self,
        request: Request,
        authorization: Option<&HeaderValue>,
        body: Body,
    ) -> Result<Response> {
        let host = host_of(&request.url);
        let client = self.client(&host).await?;
        let mut builder = client.request(request.method, request.url);
        builder = builder.headers(request.headers).headers(request.own_headers);
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value);
        }
        builder.body(body).send().await.map_err(|source| transport_error(&host, source))
    }

    async fn client(&self, host: &str) -> Result<reqwest::Client> {
        if let Some(client) = lock(&self.clients).get(host) {
            return Ok(client.clone());
        }
        let (settings, config) =
            (self.config.host(host).cloned().unwrap_or_default(), self.config.clone());
        let verify = self.config.security(host) == Security::Tls;
        let client = blocking(move || build(&config, tls::configure(&settings, verify)?)).await?;
        lock(&self.clients).insert(host.to_owned(), client.clone());
        Ok(client)
    }
}

fn build(config: &Config, tls: rustls::ClientConfig) -> Result<reqwest::Client> {
    let failed = |source| Error::caused(ErrorKind::InvalidInput, "set up the HTTP client", source);
    // This machine by name is this machine, whatever a resolver says.
    let localhost: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let mut builder = reqwest::Client::builder()
        .user_agent(&config.user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        // One connection a transfer: HTTP/2's flow control makes large blobs slower, not faster.
        .http1_only()
        .no_proxy()
        .resolve_to_addrs("localhost", &localhost)
        .tls_backend_preconfigured(tls);
    if let Some(proxy) = &config.proxy {
        let all = reqwest::Proxy::all(&proxy.url).map_err(failed)?;
        builder = builder.proxy(all.no_proxy(NoProxy::from_string(&proxy.no_proxy)));
    }
    builder.build().map_err(failed)
}

/// Where a response redirects to, for requests that may be repeated elsewhere.
fn redirect(request: &Request, response: &Response) -> Result<Option<Url>> {
    let followed = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(request.method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    let safe = matches!(request.method, Method::GET | Method::HEAD);
    let Some(location) = response.headers().get(LOCATION).filter(|_| followed && safe) else {
        return Ok(None);
    };
    let target = location.to_str().ok().and_then(|text| request.url.join(text).ok());
    let target = target.filter(|url| matches!(url.scheme(), "http" | "https"));
    let host = host_of(&request.url);
    target
        .map(Some)
        .ok_or_else(|| unreachable(&host, "it redirects to something that is no address"))
}

pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// `path` below `base`. The path is made of parts that were validated.
pub(super) fn join(base: &Url, path: &str) -> Result<Url> {
    base.join(path).map_err(|source| {
        Error::caused(ErrorKind::InvalidInput, format!("build URL for {path:?}"), source)
    })
}

fn unreachable(host: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("reach registry {host}: {why}"))
}

pub(super) fn transport_error(host: &str, source: reqwest::Error) -> Error {
    // A URL can hold a signature that is a secret.
    let source = source.without_url();
    if !source.is_connect() {
        let attempt = format!("reach registry {host}: the connection broke");
        return Error::caused(ErrorKind::Unreachable, attempt, source);
    }
    let attempt = format!("reach registry {host}: {}", connect_remedy(&source));
    // Between this error and the system's there are only the names of layers.
    Error::caused(ErrorKind::Unreachable, attempt, innermost(&source).to_string())
}

/// What to do about a connection that did not come about.
fn connect_remedy(source: &reqwest::Error) -> &'static str {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(source);
    while let Some(error) = cause {
        // The client library has no type for this.
        if error.to_string() == "dns error" {
            return "its name is not known; check the spelling and this host's name server";
        }
        cause = error.source();
    }
    // What TLS finds wrong comes as an error of the same type, without a number of the system's.
    let answered = innermost(source).downcast_ref::<io::Error>().is_none_or(|error| {
        error.raw_os_error().is_none() && error.kind() != io::ErrorKind::TimedOut
    });
    if answered {
        "no secure connection; one that speaks plain HTTP must be listed in insecure-registries, and the certificate of \
         any other must be trusted"
    } else {
        "nothing answers there; check the address and port, the network, and that it runs"
    }
}

fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    error.source().map_or(error, innermost)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
