//! Credentials: given by the caller, in Docker's `config.json`, or by a credential helper.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reference::DEFAULT_DOMAIN;
use crate::{Error, ErrorKind, Result, document};

/// Under what names Docker Hub's credentials are kept, the usual one first.
const HUB_KEYS: [&str; 4] =
    ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"];
const CONFIG_LIMIT: usize = 4 << 20;
/// A helper may ask its user something, but not forever.
const HELPER_TIME: Duration = Duration::from_secs(60);
const HELPER_OUTPUT: u64 = 1 << 20;

/// What proves who the caller is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// User name and password (or personal access token).
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token of the registry's token service, as `docker login` may store.
    IdentityToken(String),
    /// A finished bearer token.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// Where credentials are found.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Known ones by registry host, as in references. They win.
    pub known: BTreeMap<String, Credential>,
    /// The directory of a Docker `config.json`, if one shall be read. It is read anew each time.
    pub docker_config: Option<PathBuf>,
    /// Directories in which credential helpers (`docker-credential-NAME`) are looked for.
    pub helpers: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: Option<HashMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Credentials {
    /// The credential for a registry host, if there is one.
    pub(super) async fn find(&self, host: &str) -> Result<Option<Credential>> {
        if let Some(known) = self.known.get(host) {
            return Ok(Some(known.clone()));
        }
        let Some(directory) = &self.docker_config else { return Ok(None) };
        let Some(config) = read(&directory.join("config.json"))? else { return Ok(None) };
        let helper = config.cred_helpers.as_ref().and_then(|helpers| helpers.get(host));
        if let Some(helper) = helper.or(config.creds_store.as_ref()).filter(|name| !name.is_empty())
        {
            let server = if host == DEFAULT_DOMAIN { HUB_KEYS[0] } else { host };
            if let Some(found) = self.ask_helper(helper, server).await? {
                return Ok(Some(found));
            }
        }
        let Some(auths) = &config.auths else { return Ok(None) };
        find_entry(auths, host).map_or(Ok(None), |entry| entry.credential(host))
    }

    async fn ask_helper(&self, name: &str, server: &str) -> Result<Option<Credential>> {
        let attempt = format!("ask credential helper docker-credential-{name} for {server}");
        if name.contains('/') {
            return Err(Error::invalid(format!("{attempt}: the helper's name is malformed")));
        }
        let program = format!("docker-credential-{name}");
        let candidates = self.helpers.iter().map(|directory| directory.join(&program));
        let Some(program) = { candidates }.find(|path| path.is_file()) else {
            return Err(Error::not_found(format!(
                "{attempt}: the program is not installed; install it or remove it from config.json"
            )));
        };
        let failed = |source: io::Error| Error::caused(ErrorKind::Io, attempt.clone(), source);
        let asked = tokio::time::timeout(HELPER_TIME, run(&program, server)).await;
        let asked = asked.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        let Some(output) = asked.map_err(failed)? else { return Ok(None) };
        let answer: HelperAnswer = document::parse("credential helper's answer", &output, 1 << 20)?;
        Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::IdentityToken(answer.secret),
            _ => Credential::Basic { username: answer.username, password: answer.secret },
        }))
    }
}

/// Runs `program get`; `None` if it has nothing.
async fn run(program: &Path, server: &str) -> io::Result<Option<Vec<u8>>> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).await?;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_OUTPUT).read_to_end(&mut output).await?;
    }
    // A helper that does not know the server exits with 1 and says so on stdout.
    Ok(child.wait().await?.success().then_some(output))
}

fn read(path: &Path) -> Result<Option<DockerConfig>> {
    match std::fs::read(path) {
        Ok(bytes) => document::parse(&path.display().to_string(), &bytes, CONFIG_LIMIT).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", path, source)),
    }
}

fn find_entry<'a>(auths: &'a HashMap<String, Entry>, host: &str) -> Option<&'a Entry> {
    if host == DEFAULT_DOMAIN {
        return HUB_KEYS.iter().find_map(|key| auths.get(*key));
    }
    // Old versions of docker login wrote whole URLs.
    let bare = |key: &str| {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest).to_owned();
        key.split('/').next().unwrap_or_default().to_owned()
    };
    auths
        .get(host)
        .or_else(|| auths.iter().find(|(key, _)| bare(key) == host).map(|(_, entry)| entry))
}

impl Entry {
    fn credential(&self, host: &str) -> Result<Option<Credential>> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let decoded = STANDARD.decode(auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let Some((username, password)) = pair else {
                return Err(Error::invalid(format!(
                    "read config.json: the auth of {host} is malformed; log in again"
                )));
            };
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credential::Basic { username: username.to_owned(), password }));
        }
        Ok(filled(&self.username).map(|username| Credential::Basic {
            username,
            password: self.password.clone().unwrap_or_default(),
        }))
    }
}
