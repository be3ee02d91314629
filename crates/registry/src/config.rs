//! Settings.

use std::path::PathBuf;
use std::time::Duration;

use brig_images::registry::Credentials;

/// Settings of a [`Registry`](crate::Registry).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub root: PathBuf,
    /// A file of `user:bcrypt-hash` lines, as `htpasswd -B` makes it. Absent: no login is asked for. It is read anew
    /// when it changes.
    pub htpasswd: Option<PathBuf>,
    /// Certificate chain and key, PEM files. Absent: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Refuse everything that would change a repository.
    pub read_only: bool,
    /// Fetch what is not here from this registry, keep it, and take no pushes.
    pub upstream: Option<Upstream>,
    /// What no manifest refers to is kept this long.
    pub grace: Duration,
    /// Time between two garbage collections; zero for none.
    pub collect_every: Duration,
    /// Limits on what strangers may use up.
    pub limits: Limits,
}

impl Config {
    /// Defaults: no login, no TLS, garbage older than a day collected each hour.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            htpasswd: None,
            tls: None,
            read_only: false,
            upstream: None,
            grace: Duration::from_secs(24 * 3600),
            collect_every: Duration::from_secs(3600),
            limits: Limits::default(),
        }
    }
}

/// The registry that a pull-through cache stands before.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its address: `https://registry-1.docker.io`, `http://10.0.0.1:5000`.
    pub url: String,
    /// Where its credentials are found.
    pub credentials: Credentials,
}

impl Upstream {
    /// One that is asked without credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: Credentials::default() }
    }
}

/// Limits on what strangers may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Uploads under way at once.
    pub uploads: usize,
    /// Largest blob, in bytes.
    pub blob_bytes: u64,
    /// Largest manifest, in bytes.
    pub manifest_bytes: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes: usize,
    /// A request that neither sends nor takes a byte for this long is broken off.
    pub stall: Duration,
    /// Most entries in one page of a list.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            uploads: 1024,
            blob_bytes: 256 << 30,
            manifest_bytes: brig_images::manifest::MANIFEST_LIMIT,
            head_bytes: 64 << 10,
            stall: Duration::from_secs(60),
            page: 1000,
        }
    }
}
