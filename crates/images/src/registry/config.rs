//! Settings of the client, and which endpoints a reference leads to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::credentials::Credentials;
use super::hosts;
use super::transport::{Request, join};
use crate::reference::{DEFAULT_DOMAIN, Reference};
use crate::{Error, Result};

/// Settings of a [`Client`](super::Client).
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of single hosts, keyed as in references: `host` or `host:port`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Where credentials come from when a call brings none.
    pub credentials: Credentials,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Blobs transferred at once by one operation.
    pub parallel: usize,
    /// How persistent the client is.
    pub retry: Retry,
    /// A transfer without a single byte for this long is broken off and retried.
    pub stall: Duration,
    /// The proxy to use, if any. The environment is not looked at.
    pub proxy: Option<Proxy>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            credentials: Credentials::default(),
            user_agent: concat!("brig/", env!("CARGO_PKG_VERSION")).to_owned(),
            parallel: 4,
            retry: Retry::default(),
            stall: Duration::from_secs(30),
            proxy: None,
        }
    }
}

/// How often and at what distance failed requests are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all. A download that got any further counts anew.
    pub attempts: u32,
    /// Pause before the second try; it doubles from try to try, with jitter.
    pub pause: Duration,
    /// Longest pause, also when the registry's `Retry-After` asks for more.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The pause after try number `attempt` (from 1), given what the registry asked for.
    pub(super) fn pause_after(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = self
            .pause
            .saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        // Between half and all of it, so that many clients do not come back at once.
        let jittered = doubled.min(self.longest_pause).mul_f64(0.5 + rand::random::<f64>() / 2.0);
        asked.map_or(jittered, |asked| asked.max(jittered)).min(self.longest_pause)
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its URL.
    pub url: String,
    /// Hosts to reach directly, comma-separated, as in `NO_PROXY`.
    pub no_proxy: String,
}

/// Settings of one registry host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// How far connections are protected. `None`: [`Security::Insecure`] on loopback as Docker has it, else
    /// [`Security::Tls`].
    pub security: Option<Security>,
    /// Files with further certificate authorities, PEM.
    pub ca: Vec<PathBuf>,
    /// Client certificate chain and key, PEM files.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Places to try before the host itself, in order.
    pub mirrors: Vec<Mirror>,
    /// Further hosts that may see this host's credentials as its token service.
    pub realms: Vec<String>,
    /// The root of the host's API (`https://host/v2/`) where it is not at the host's own name.
    pub server: Option<String>,
    /// Headers for every request to the host, and to no other.
    pub headers: HeaderMap,
}

/// A place that has what a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The root of its API, `https://host/v2/`.
    pub url: String,
    /// It gives content by digest.
    pub pull: bool,
    /// It tells what a tag stands for.
    pub resolve: bool,
    /// It takes pushes; the first that does gets them instead of the host.
    pub push: bool,
    /// It is told which registry it stands for (`?ns=`), as one that mirrors several needs to know.
    pub names_registry: bool,
    /// Headers for every request to it.
    pub headers: HeaderMap,
}

impl Mirror {
    /// A mirror as docker has them: for pulls, at `https://host`, `http://host` or `host` with a path or without.
    #[must_use]
    pub fn at(address: &str) -> Self {
        let scheme = if address.contains("://") { "" } else { "https://" };
        let url = format!("{scheme}{}/v2/", address.trim_end_matches('/'));
        let headers = HeaderMap::new();
        Self { url, pull: true, resolve: true, push: false, names_registry: false, headers }
    }
}

/// How far connections to a host are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// TLS, verified.
    Tls,
    /// TLS, whose certificate may be anyone's.
    Unverified,
    /// TLS without verification, or plain HTTP if the host does not speak TLS.
    Insecure,
    /// Plain HTTP.
    PlainHttp,
}

/// A place that serves a repository.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The root of its API, with its slash. For [`Security::Insecure`] the scheme is settled at first contact.
    pub(super) base: Url,
    /// Host and port as configured; the key of settings and credentials.
    pub(super) host: String,
    pub(super) security: Security,
    /// False for the registry that the reference names.
    pub(super) is_mirror: bool,
    /// It may be asked what a tag stands for.
    pub(super) resolve: bool,
    /// The registry that a mirror shall be told it stands for.
    pub(super) namespace: Option<String>,
    pub(super) headers: HeaderMap,
}

impl Endpoint {
    /// A request for `path` beneath `base`, which is this endpoint's with its scheme settled.
    pub(super) fn request(&self, method: Method, base: &Url, path: &str) -> Result<Request> {
        let mut url = join(base, path)?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(Request { own_headers: self.headers.clone(), ..Request::new(method, url) })
    }
}

impl Config {
    /// Mirrors first, the registry itself last.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let domain = reference.domain();
        let mirrors = self.mirrors(domain).filter(|mirror| mirror.pull);
        let mut endpoints =
            mirrors.map(|mirror| self.mirror(domain, mirror)).collect::<Result<Vec<_>>>()?;
        endpoints.push(self.origin(domain)?);
        Ok(endpoints)
    }

    /// Where pushes go.
    pub(super) fn push_endpoint(&self, domain: &str) -> Result<Endpoint> {
        match self.mirrors(domain).find(|mirror| mirror.push) {
            Some(mirror) => self.mirror(domain, mirror),
            None => self.origin(domain),
        }
    }

    fn mirrors(&self, domain: &str) -> impl Iterator<Item = &Mirror> {
        self.host(domain).into_iter().flat_map(|host| host.mirrors.iter())
    }

    /// The settings of a host: its own, or those for hosts that have none.
    pub(super) fn host(&self, host: &str) -> Option<&HostConfig> {
        self.hosts.get(host).or_else(|| self.hosts.get(hosts::DEFAULT))
    }

    /// The registry that `domain` itself stands for.
    pub(super) fn origin(&self, domain: &str) -> Result<Endpoint> {
        // Docker Hub's registry does not live under the name it goes by.
        let address = if domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        let settings = self.host(domain);
        let mut security = self.security(domain);
        let scheme = if security == Security::PlainHttp { "http" } else { "https" };
        let base = match settings.and_then(|settings| settings.server.as_deref()) {
            Some(server) => parse_url(server)?,
            None => parse_url(&format!("{scheme}://{address}/v2/"))?,
        };
        if base.scheme() == "http" {
            security = Security::PlainHttp;
        }
        let headers = settings.map(|settings| settings.headers.clone()).unwrap_or_default();
        let (host, is_mirror, resolve, namespace) = (domain.to_owned(), false, true, None);
        Ok(Endpoint { base, host, security, is_mirror, resolve, namespace, headers })
    }

    fn mirror(&self, domain: &str, mirror: &Mirror) -> Result<Endpoint> {
        let base = parse_url(&mirror.url)?;
        let host = host_of(&base);
        let security = match base.scheme() {
            "http" => Security::PlainHttp,
            _ => self.host(&host).and_then(|host| host.security).unwrap_or(Security::Tls),
        };
        let named = mirror.names_registry && host != domain;
        let mut headers = self.host(&host).map(|host| host.headers.clone()).unwrap_or_default();
        for (name, value) in &mirror.headers {
            headers.append(name, value.clone());
        }
        Ok(Endpoint {
            base,
            host,
            security,
            is_mirror: true,
            resolve: mirror.resolve,
            namespace: named.then(|| domain.to_owned()),
            headers,
        })
    }

    pub(super) fn security(&self, host: &str) -> Security {
        let configured = self.host(host).and_then(|host| host.security);
        configured.unwrap_or_else(|| match is_loopback(host) {
            true => Security::Insecure,
            false => Security::Tls,
        })
    }
}

pub(super) fn parse_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|source| {
        Error::caused(
            crate::ErrorKind::InvalidInput,
            format!("parse registry URL {text:?}"),
            source,
        )
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::invalid(format!(
            "parse registry URL {text:?}: want http:// or https://"
        )));
    }
    Ok(url)
}

/// Host and, if it is not the scheme's own, port.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether `host` (maybe with port) is this machine by its very name: `localhost`, 127.0.0.0/8 or ::1. Names that only
/// resolve to such an address do not count; a stranger's DNS server chooses those.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1", false),
            ("registry.example:5000", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }

    #[test]
    fn mirrors_come_before_the_origin() {
        let mut config = Config::default();
        let mirrors = vec![Mirror::at("http://127.0.0.1:5/cache"), Mirror::at("mirror.example")];
        config
            .hosts
            .insert("docker.io".to_owned(), HostConfig { mirrors, ..HostConfig::default() });
        let endpoints = config.endpoints(&Reference::parse("nginx").unwrap()).unwrap();
        let bases: Vec<_> = endpoints.iter().map(|endpoint| endpoint.base.as_str()).collect();
        let want = [
            "http://127.0.0.1:5/cache/v2/",
            "https://mirror.example/v2/",
            "https://registry-1.docker.io/v2/",
        ];
        assert_eq!(bases, want);
    }

    #[test]
    fn pauses_grow_are_bounded_and_respect_the_registry() {
        let retry = Retry::default();
        assert!(retry.pause_after(1, None) <= retry.pause);
        assert!(retry.pause_after(4, None) >= retry.pause.saturating_mul(4));
        assert!(retry.pause_after(40, None) <= retry.longest_pause);
        let asked = Duration::from_secs(7);
        assert_eq!(retry.pause_after(1, Some(asked)), asked);
        assert_eq!(retry.pause_after(1, Some(Duration::MAX)), retry.longest_pause);
    }
}
