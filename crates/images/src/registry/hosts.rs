//! Settings of hosts from directories: containerd's `hosts.toml`, and docker's certificates.
//!
//! ```text
//! <directory>/
//!   registry.example:5000/
//!     hosts.toml               mirrors in order, the server behind them, and how each is spoken to
//!     ca.crt                   without hosts.toml: every *.crt is a further certificate authority,
//!     client.cert, client.key  and a pair of *.cert and *.key is the client's certificate
//!   _default/                  for every host that has no directory
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::config::{Config, HostConfig, Mirror, Security, host_of, is_loopback, parse_url};
use crate::{Error, ErrorKind, Result};

/// The directory for hosts that have none.
pub(super) const DEFAULT: &str = "_default";
/// Largest `hosts.toml`, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Table>>,
    capabilities: Option<Vec<Capability>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
}

/// What can be said of a mirror, and at the top of the file of the server.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    capabilities: Option<Vec<Capability>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Capability {
    Pull,
    Resolve,
    Push,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// One file with both, a list of such files, or a list of pairs of certificate and key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

impl Config {
    /// Adds what a directory of host directories says to [`hosts`](Self::hosts): containerd's `hosts.toml`, or without
    /// one docker's certificate files. What is in `hosts` already stays where the two differ. A directory that does not
    /// exist says nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a file that is malformed, says something that is not supported, or
    /// contradicts another; [`Io`](ErrorKind::Io).
    pub fn read_host_directories(&mut self, directory: &Path) -> Result<()> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::io("list", directory, source)),
        };
        let mut found = BTreeMap::new();
        let mut mirrors = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|source| Error::io("list", directory, source))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !path.is_dir() {
                continue;
            }
            let settings = match read(&path.join("hosts.toml"))? {
                Some(text) => parse(&path, &text, &mut mirrors)?,
                None => certificates(&path)?,
            };
            found.insert(name.to_owned(), settings);
        }
        // A mirror with a directory of its own is spoken to as that says.
        for (host, settings) in mirrors {
            found.entry(host).or_insert(settings);
        }
        for (host, settings) in found {
            self.hosts.entry(host).or_default().complete(settings);
        }
        Ok(())
    }
}

impl HostConfig {
    /// Takes from `other` what is not set here.
    fn complete(&mut self, other: Self) {
        self.security = self.security.or(other.security);
        self.client_certificate = self.client_certificate.take().or(other.client_certificate);
        self.server = self.server.take().or(other.server);
        self.ca.extend(other.ca);
        self.mirrors.extend(other.mirrors);
        self.realms.extend(other.realms);
        for (name, value) in &other.headers {
            self.headers.append(name, value.clone());
        }
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_LIMIT => {
            let path = path.display();
            return Err(Error::invalid(format!("read {path}: larger than {FILE_LIMIT} bytes")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    fs::read_to_string(path).map(Some).map_err(|source| Error::io("read", path, source))
}

/// Reads a `hosts.toml`; `others` gets how its mirrors are spoken to.
fn parse(
    directory: &Path,
    text: &str,
    others: &mut BTreeMap<String, HostConfig>,
) -> Result<HostConfig> {
    let what = || format!("read {}", directory.join("hosts.toml").display());
    let file: File = toml::from_str(text)
        .map_err(|source| Error::caused(ErrorKind::InvalidInput, what(), source))?;
    let File { server, host, capabilities, ca, client, skip_verify, override_path, header } = file;
    if capabilities.is_some() {
        return Err(Error::unsupported(format!(
            "{}: capabilities of the server are not supported, only those of [host]",
            what()
        )));
    }
    let table = Table { capabilities: None, ca, client, skip_verify, override_path, header };
    let mut settings = table.settings(directory)?;
    settings.server = server
        .map(|server| table.address(&server))
        .transpose()
        .map_err(|source| Error::caused(ErrorKind::InvalidInput, what(), source))?;
    // The order of the file counts; a map of TOML has none.
    let mut hosts: Vec<(String, Spanned<Table>)> = host.into_iter().collect();
    hosts.sort_by_key(|(_, table)| table.span().start);
    for (address, table) in hosts {
        let table = table.into_inner();
        let mirror = table.mirror(&address)?;
        let name = host_of(&parse_url(&mirror.url)?);
        let mut own = table.settings(directory)?;
        own.headers.clear();
        if let Some(other) = others.insert(name.clone(), own.clone())
            && other != own
        {
            return Err(Error::invalid(format!(
                "{}: another hosts.toml speaks to {name} in another way; make a directory {name} that says which",
                what()
            )));
        }
        settings.mirrors.push(mirror);
    }
    Ok(settings)
}

impl Table {
    fn can(&self, capability: Capability) -> bool {
        self.capabilities.as_ref().is_none_or(|all| all.contains(&capability))
    }

    /// The root of the API beneath an address.
    fn address(&self, text: &str) -> Result<String> {
        let plain = is_loopback(text) && self.ca.is_none() && self.client.is_none();
        let text = match text.contains("://") {
            true => text.to_owned(),
            false => format!("{}://{text}", if plain { "http" } else { "https" }),
        };
        let mut url = parse_url(&text)?;
        let path = url.path().trim_end_matches('/').to_owned();
        let api = match self.override_path {
            Some(true) => "/",
            // Written with or without it, the API's root is meant.
            _ if path.ends_with("/v2") => "/",
            _ => "/v2/",
        };
        url.set_path(&format!("{path}{api}"));
        Ok(url.into())
    }

    fn mirror(&self, address: &str) -> Result<Mirror> {
        Ok(Mirror {
            url: self.address(address)?,
            pull: self.can(Capability::Pull),
            resolve: self.can(Capability::Resolve),
            push: self.can(Capability::Push),
            names_registry: true,
            headers: self.headers()?,
        })
    }

    /// How the host is spoken to.
    fn settings(&self, directory: &Path) -> Result<HostConfig> {
        let path = |text: &String| directory.join(text);
        let security = match self.skip_verify {
            Some(true) => Some(Security::Unverified),
            // Certificates mean that they are looked at, also on loopback.
            _ if self.ca.is_some() => Some(Security::Tls),
            _ => None,
        };
        let ca = match &self.ca {
            None => Vec::new(),
            Some(OneOrMany::One(file)) => vec![path(file)],
            Some(OneOrMany::Many(files)) => files.iter().map(path).collect(),
        };
        let pairs: Vec<(PathBuf, PathBuf)> = match &self.client {
            None => Vec::new(),
            Some(Client::One(file)) => vec![(path(file), path(file))],
            Some(Client::Many(files)) => files.iter().map(|f| (path(f), path(f))).collect(),
            Some(Client::Pairs(pairs)) => {
                let pair = |pair: &Vec<String>| match pair.as_slice() {
                    [both] => Ok((path(both), path(both))),
                    [certificate, key] if key.is_empty() => {
                        Ok((path(certificate), path(certificate)))
                    }
                    [certificate, key] => Ok((path(certificate), path(key))),
                    _ => Err(malformed(directory, "a client is one file, or certificate and key")),
                };
                pairs.iter().map(pair).collect::<Result<_>>()?
            }
        };
        if pairs.len() > 1 {
            return Err(malformed(directory, "more than one client certificate is not supported"));
        }
        let client_certificate = pairs.into_iter().next();
        let headers = self.headers()?;
        Ok(HostConfig { security, ca, client_certificate, headers, ..HostConfig::default() })
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, values) in self.header.iter().flatten() {
            let wrong = |source: Box<dyn std::error::Error + Send + Sync>| {
                let attempt = format!("use header {name:?} of hosts.toml");
                Error::caused(ErrorKind::InvalidInput, attempt, source)
            };
            let values = match values {
                OneOrMany::One(value) => std::slice::from_ref(value),
                OneOrMany::Many(values) => values,
            };
            for value in values {
                let key = HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(e.into()))?;
                let mut value = HeaderValue::from_str(value).map_err(|e| wrong(e.into()))?;
                value.set_sensitive(true);
                headers.append(key, value);
            }
        }
        Ok(headers)
    }
}

/// Docker's layout: `*.crt`, and one pair of `*.cert` and `*.key`.
fn certificates(directory: &Path) -> Result<HostConfig> {
    let mut settings = HostConfig::default();
    let entries = fs::read_dir(directory).map_err(|source| Error::io("list", directory, source))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|source| Error::io("list", directory, source))?.path());
    }
    files.sort();
    let has = |path: &PathBuf| files.contains(path);
    for file in &files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => settings.ca.push(file.clone()),
            Some("cert") => {
                let key = file.with_extension("key");
                if !has(&key) {
                    return Err(malformed(directory, &format!("{} has no key", file.display())));
                }
                if settings.client_certificate.replace((file.clone(), key)).is_some() {
                    let why = "more than one client certificate is not supported";
                    return Err(malformed(directory, why));
                }
            }
            Some("key") if !has(&file.with_extension("cert")) => {
                return Err(malformed(directory, &format!("{} has no .cert", file.display())));
            }
            _ => {}
        }
    }
    if !settings.ca.is_empty() {
        settings.security = Some(Security::Tls);
    }
    Ok(settings)
}

fn malformed(directory: &Path, why: &str) -> Error {
    Error::invalid(format!("read settings of a registry in {}: {why}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn hosts_toml_orders_mirrors_as_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        let text = r#"
            server = "https://upstream.example/base"
            ca = "server.pem"
            [host."https://z.example"]
            capabilities = ["pull"]
            skip_verify = true
            [host."http://a.example:5000/v2/cache"]
            override_path = true
            client = [["a.cert", "a.key"]]
            header = { x-token = ["one", "two"] }
            [host."m.example/hub"]
        "#;
        write(root.path(), "docker.io/hosts.toml", text);
        let mut config = Config::default();
        config.read_host_directories(root.path()).unwrap();
        let name = Reference::parse("nginx").unwrap();
        let endpoints = config.endpoints(&name).unwrap();
        let bases: Vec<_> = endpoints.iter().map(|endpoint| endpoint.base.as_str()).collect();
        let want = [
            "https://z.example/v2/",
            "http://a.example:5000/v2/cache/",
            "https://m.example/hub/v2/",
            "https://upstream.example/base/v2/",
        ];
        assert_eq!(bases, want);
        assert_eq!(endpoints[0].security, Security::Unverified);
        assert_eq!(endpoints.iter().filter(|endpoint| endpoint.resolve).count(), 3);
        assert_eq!(endpoints[1].headers.get_all("x-token").iter().count(), 2);
        let directory = root.path().join("docker.io");
        assert_eq!(config.hosts["docker.io"].ca, [directory.join("server.pem")]);
        let pair = (directory.join("a.cert"), directory.join("a.key"));
        assert_eq!(config.hosts["a.example:5000"].client_certificate, Some(pair));
        // Pushes go to the first that takes them.
        assert_eq!(config.push_endpoint("docker.io").unwrap().base.as_str(), want[1]);
    }

    #[test]
    fn docker_s_certificates_and_the_default_directory_are_read() {
        let root = tempfile::tempdir().unwrap();
        for file in ["h:5/ca.crt", "h:5/client.cert", "h:5/client.key", "h:5/README"] {
            write(root.path(), file, "");
        }
        write(root.path(), "_default/hosts.toml", "[host.'https://cache.example']");
        let mut config = Config::default();
        config.read_host_directories(root.path()).unwrap();
        let settings = &config.hosts["h:5"];
        assert_eq!(settings.ca, [root.path().join("h:5/ca.crt")]);
        assert!(settings.client_certificate.is_some());
        let own = config.endpoints(&Reference::parse("h:5/x").unwrap()).unwrap();
        assert_eq!(own.len(), 1, "a directory of one's own is instead of the default");
        let other = config.endpoints(&Reference::parse("other.example/x").unwrap()).unwrap();
        assert_eq!(other[0].base.as_str(), "https://cache.example/v2/");
        assert_eq!(other[0].namespace.as_deref(), Some("other.example"));
        config.read_host_directories(&root.path().join("none")).unwrap();
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, word) in [
            ("servr = 'x'", "servr"),
            ("[host.'https://x']\ndial_timeout = '1s'", "dial_timeout"),
            ("[host.'https://x']\nclient = [['a','b'],['c','d']]", "more than one"),
            ("[host.'https://x']\ncapabilities = ['fly']", "fly"),
            ("server = 'ftp://x'", "ftp://x"),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), "r.example/hosts.toml", text);
            let error = Config::default().read_host_directories(root.path()).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            assert!(format!("{error}: {source:?}").contains(word), "{error}: {source:?}");
        }
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "r.example/client.cert", "");
        let error = Config::default().read_host_directories(root.path()).unwrap_err();
        assert!(error.to_string().contains("has no key"), "{error}");
    }
}
