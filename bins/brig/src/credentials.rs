//! Credentials of registries: docker's `config.json`, shared with docker, and its credential helpers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_engine_api::registry_auth::RegistryAuth;
use serde_json::{Map, Value, json};

/// What docker calls its own registry in `config.json`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The file with credentials, edited without touching what it says beside them.
#[derive(Debug)]
pub(crate) struct Credentials {
    path: PathBuf,
    config: Map<String, Value>,
}

impl Credentials {
    /// Reads `config.json` in `directory`; one that is not there is empty.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let config = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("parse {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        Ok(Self { path, config })
    }

    /// The credentials for the registry that holds `image`.
    pub(crate) fn for_image(&self, image: &str) -> Result<Option<RegistryAuth>> {
        self.for_registry(registry_of(image))
    }

    /// The credentials for a registry.
    pub(crate) fn for_registry(&self, registry: &str) -> Result<Option<RegistryAuth>> {
        let key = key(registry);
        if let Some(helper) = self.helper(key) {
            return ask_helper(helper, key);
        }
        let Some(entry) = self.config.get("auths").and_then(|auths| auths.get(key)) else {
            return Ok(None);
        };
        let text =
            |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let auth = RegistryAuth {
            username: text("username"),
            password: text("password"),
            auth: text("auth"),
            identitytoken: text("identitytoken"),
            registrytoken: text("registrytoken"),
            serveraddress: key.to_owned(),
        };
        Ok(Some(auth))
    }

    /// Stores credentials for a registry.
    pub(crate) fn store(&mut self, registry: &str, username: &str, password: &str) -> Result<()> {
        let key = key(registry).to_owned();
        if let Some(helper) = self.helper(&key) {
            let entry = json!({"ServerURL": key, "Username": username, "Secret": password});
            run_helper(helper, "store", &entry.to_string())?;
            return Ok(());
        }
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let auths = self.config.entry("auths").or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else {
            bail!("auths in {} is no object", self.path.display())
        };
        auths.insert(key, json!({ "auth": auth }));
        self.save()
    }

    /// Forgets the credentials for a registry; says whether there were any.
    pub(crate) fn remove(&mut self, registry: &str) -> Result<bool> {
        let key = key(registry).to_owned();
        if let Some(helper) = self.helper(&key) {
            run_helper(helper, "erase", &key)?;
            return Ok(true);
        }
        let removed = self
            .config
            .get_mut("auths")
            .and_then(Value::as_object_mut)
            .and_then(|auths| auths.remove(&key))
            .is_some();
        if removed {
            self.save()?;
        }
        Ok(removed)
    }

    fn helper(&self, key: &str) -> Option<&str> {
        let of_registry = self.config.get("credHelpers").and_then(|helpers| helpers.get(key));
        of_registry.or_else(|| self.config.get("credsStore")).and_then(Value::as_str)
    }

    /// Replaces the file at once, readable by its owner only.
    fn save(&self) -> Result<()> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let fresh = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .with_context(|| format!("create {}", fresh.display()))?;
        let text = serde_json::to_vec_pretty(&self.config).context("write credentials")?;
        file.write_all(&text).with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &self.path).with_context(|| format!("replace {}", self.path.display()))
    }
}

/// The registry's part of an image's name, by docker's rule: the first component when it looks like a host.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

fn key(registry: &str) -> &str {
    match registry {
        ""
        | "docker.io"
        | "index.docker.io"
        | "registry-1.docker.io"
        | "https://index.docker.io/v1/" => DOCKER_HUB,
        other => {
            let bare = other
                .strip_prefix("https://")
                .or_else(|| other.strip_prefix("http://"))
                .unwrap_or(other);
            bare.trim_end_matches('/')
        }
    }
}

fn ask_helper(helper: &str, key: &str) -> Result<Option<RegistryAuth>> {
    let Ok(answer) = run_helper(helper, "get", key) else {
        // A helper that knows nothing fails; docker goes on without credentials, too.
        return Ok(None);
    };
    let answer: BTreeMap<String, String> = serde_json::from_str(&answer)
        .with_context(|| format!("parse the answer of docker-credential-{helper}"))?;
    let text = |name: &str| answer.get(name).cloned().unwrap_or_default();
    let mut auth = RegistryAuth { serveraddress: key.to_owned(), ..RegistryAuth::default() };
    // The user name that helpers give for an identity token.
    if text("Username") == "<token>" {
        auth.identitytoken = text("Secret");
    } else {
        auth.username = text("Username");
        auth.password = text("Secret");
    }
    Ok(Some(auth))
}

fn run_helper(helper: &str, action: &str, input: &str) -> Result<String> {
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("write to {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{program} {action}: {}", text.trim());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_first_component_when_it_looks_like_a_host() {
        for (image, registry) in [
            ("nginx", DOCKER_HUB),
            ("library/nginx", DOCKER_HUB),
            ("localhost/x", "localhost"),
            ("127.0.0.1:5000/x/y", "127.0.0.1:5000"),
            ("ghcr.io/x", "ghcr.io"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    #[test]
    fn credentials_are_stored_as_docker_stores_them_and_other_settings_stay() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        fs::write(&file, r#"{"detachKeys":"ctrl-x"}"#).unwrap();
        let mut credentials = Credentials::load(directory.path()).unwrap();
        credentials.store("https://127.0.0.1:5000/", "me", "secret").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("bWU6c2VjcmV0") && text.contains("ctrl-x"), "{text}");
        let mut again = Credentials::load(directory.path()).unwrap();
        let auth = again.for_image("127.0.0.1:5000/a").unwrap().unwrap();
        assert_eq!(auth.auth, "bWU6c2VjcmV0");
        assert!(again.remove("127.0.0.1:5000").unwrap());
        assert!(!again.remove("127.0.0.1:5000").unwrap());
    }
}
