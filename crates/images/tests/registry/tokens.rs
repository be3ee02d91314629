//! Debian's docker-registry behind a token service that signs what the registry verifies.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use brig_images::registry::{Client, Config, Credential, PullOptions, PushOptions};
use brig_images::{Descriptor, ErrorKind, Reference, Result, Store};

use crate::support::{Registry, Reply, Seen, Server, config, image, noise, skip, store};

const ISSUER: &str = "brig-test";
const SERVICE: &str = "registry.test";
/// What the token service takes as a refresh token.
const REFRESH: &str = "refresh-1";

/// A key, and its certificate that the registry trusts.
struct Signer {
    directory: tempfile::TempDir,
}

impl Signer {
    /// `None`, said aloud, where openssl is not installed.
    fn new(test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=token", "-keyout"])
            .arg(directory.path().join("key.pem"))
            .arg("-out")
            .arg(directory.path().join("cert.pem"))
            .output();
        if !made.is_ok_and(|output| output.status.success()) {
            skip(test, "openssl is not installed");
            return None;
        }
        Some(Self { directory })
    }

    fn certificate(&self) -> std::path::PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// A JSON web token (RFC 7519, RS256) that shows the certificate it is signed for.
    fn sign(&self, claims: &serde_json::Value) -> String {
        let pem = fs::read_to_string(self.certificate()).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.directory.path().join("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
    }
}

/// What a request to the token service asks for: scopes, and who asks.
fn asked(seen: &Seen) -> (Vec<String>, Option<String>) {
    let form = match seen.method.as_str() {
        "POST" => String::from_utf8(seen.body.clone()).unwrap(),
        _ => seen.path.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default(),
    };
    let url = reqwest::Url::parse(&format!("http://x/?{form}")).unwrap();
    let mut scopes = Vec::new();
    let mut who = None;
    for (key, value) in url.query_pairs() {
        match &*key {
            "scope" => scopes.extend(value.split(' ').map(str::to_owned)),
            "refresh_token" => who = Some(value.into_owned()),
            "service" => assert_eq!(value, SERVICE),
            _ => {}
        }
    }
    (scopes, seen.headers.get("authorization").cloned().or(who))
}

/// Grants `user` and the holder of the refresh token everything, and strangers to pull from `public/`.
fn grant(signer: &Signer, seen: &Seen, life_seconds: u64) -> Reply {
    let (scopes, who) = asked(seen);
    let basic = format!("Basic {}", STANDARD.encode("user:secret"));
    let known = who.as_deref().is_some_and(|who| who == basic || who == REFRESH);
    if who.is_some() && !known {
        return Reply::new(401, r#"{"errors":[{"code":"DENIED","message":"who are you"}]}"#);
    }
    let access = scopes.iter().map(|scope| {
        let mut parts = scope.splitn(3, ':');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let asked = parts.next().unwrap().split(',');
        let may = |action: &&str| known || (*action == "pull" && name.starts_with("public/"));
        let actions: Vec<&str> = asked.filter(may).collect();
        serde_json::json!({ "type": kind, "name": name, "actions": actions })
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = signer.sign(&serde_json::json!({
        "iss": ISSUER, "sub": if known { "user" } else { "" }, "aud": SERVICE, "jti": "1",
        "iat": now, "nbf": now - 10, "exp": now + 600, "access": access.collect::<Vec<_>>(),
    }));
    let key = if seen.method == "POST" { "access_token" } else { "token" };
    Reply::new(200, serde_json::json!({ key: token, "expires_in": life_seconds }).to_string())
}

/// The registry, and the token service that it names.
struct Guarded {
    registry: Registry,
    tokens: Server,
}

impl Guarded {
    /// Tokens are said to last `life_seconds`.
    async fn start(test: &str, life_seconds: u64) -> Option<Self> {
        let signer = Arc::new(Signer::new(test)?);
        let certificate = signer.certificate();
        let sign = Arc::clone(&signer);
        let tokens = Server::start(move |seen, _| grant(&sign, seen, life_seconds)).await;
        let auth = serde_json::json!({ "token": {
            "realm": format!("http://{}/token", tokens.host), "service": SERVICE,
            "issuer": ISSUER, "rootcertbundle": certificate,
        } });
        let registry = Registry::start_with(test, &serde_json::Value::Null, &auth)?;
        Some(Self { registry, tokens })
    }

    fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.registry.host)).unwrap()
    }

    /// Stores an image under a name of this registry.
    fn make(&self, store: &Store, rest: &str) -> (Reference, Descriptor) {
        let target = image(&store.lease().unwrap(), "linux/amd64", &[&noise(100_000, 7), b"top"]);
        let reference = self.name(rest);
        store.tag(&reference, &target).unwrap();
        (reference, target)
    }

    fn scopes(&self) -> Vec<String> {
        self.tokens.seen().iter().flat_map(|seen| asked(seen).0).collect()
    }
}

async fn push(
    client: &Client,
    name: &Reference,
    from: &Store,
    with: Option<Credential>,
) -> Result<()> {
    let options = PushOptions { credential: with, ..PushOptions::default() };
    client.push(name, &options, from, &|_| {}).await.map(drop)
}

/// Pulls into an empty store.
async fn pull(client: &Client, name: &Reference, with: Option<Credential>) -> Result<()> {
    let (_directory, to) = store();
    let options = PullOptions { credential: with, ..PullOptions::default() };
    let pulled = client.pull(name, &options, &to, &|_| {}).await?;
    let image = to.image(&pulled.target, &brig_images::Platform::parse("linux/amd64").unwrap())?;
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        to.layer(layer, diff_id)?.finish()?;
    }
    Ok(())
}

fn basic(password: &str) -> Option<Credential> {
    Some(Credential::Basic { username: "user".to_owned(), password: password.to_owned() })
}

#[tokio::test]
async fn a_token_registry_is_pushed_to_and_pulled_from() {
    const TEST: &str = "a_token_registry_is_pushed_to_and_pulled_from";
    let Some(guarded) = Guarded::start(TEST, 300).await else { return };
    let (_from, from) = store();
    let (private, _) = guarded.make(&from, "team/app:1");
    let client = Client::new(config());
    push(&client, &private, &from, basic("secret")).await.unwrap();
    // Blobs sent at the same time may each have asked for it.
    let pushed = guarded.scopes();
    assert!(pushed.iter().all(|scope| scope == "repository:team/app:pull,push"), "{pushed:?}");
    pull(&client, &private, basic("secret")).await.unwrap();
    assert_eq!(guarded.scopes()[pushed.len()..], ["repository:team/app:pull"]);
    // What the other repository has is mounted, which takes a token for both.
    let (public, _) = guarded.make(&from, "public/app:1");
    push(&client, &public, &from, basic("secret")).await.unwrap();
    let both = guarded.tokens.seen().iter().filter(|seen| asked(seen).0.len() == 2).count();
    assert!(both > 0, "{:?}", guarded.scopes());
    pull(&client, &public, None).await.unwrap();
    for (name, with) in [(&private, None), (&private, basic("wrong"))] {
        let error = pull(&client, name, with).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    let error = push(&client, &public, &from, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    client.login(private.domain(), basic("secret").unwrap()).await.unwrap();
    let error = client.login(private.domain(), basic("wrong").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn a_refresh_token_gets_tokens_and_short_ones_are_renewed() {
    const TEST: &str = "a_refresh_token_gets_tokens_and_short_ones_are_renewed";
    // A token that is as good as over when it comes: each request needs another.
    let Some(guarded) = Guarded::start(TEST, 1).await else { return };
    let (_from, from) = store();
    let (name, _) = guarded.make(&from, "team/app:1");
    let identity = || Some(Credential::IdentityToken(REFRESH.to_owned()));
    let client = Client::new(config());
    push(&client, &name, &from, identity()).await.unwrap();
    pull(&client, &name, identity()).await.unwrap();
    let seen = guarded.tokens.seen();
    assert!(seen.iter().all(|seen| seen.method == "POST"), "the token is no password");
    assert!(seen.iter().all(|seen| !seen.path.contains(REFRESH)), "nor part of a URL");
    assert!(seen.len() > 6, "{} tokens", seen.len());
    let stale = Some(Credential::IdentityToken("refresh-0".to_owned()));
    let error = pull(&client, &name, stale).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

fn with_config(directory: &Path, json: &serde_json::Value) -> Config {
    fs::write(directory.join("config.json"), json.to_string()).unwrap();
    let mut config = config();
    config.credentials.docker_config = Some(directory.to_owned());
    config.credentials.helpers = vec![directory.to_owned()];
    config
}

#[tokio::test]
async fn credentials_are_found_where_docker_keeps_them() {
    const TEST: &str = "credentials_are_found_where_docker_keeps_them";
    let Some(guarded) = Guarded::start(TEST, 300).await else { return };
    let (_from, from) = store();
    let (name, _) = guarded.make(&from, "team/app:1");
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("docker-credential-brigtest");
    let host = name.domain();
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {host}' ] || exit 1\necho '{}'\n",
        serde_json::json!({ "ServerURL": host, "Username": "<token>", "Secret": REFRESH })
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let auth = STANDARD.encode("user:secret");
    for settings in [
        serde_json::json!({ "auths": { host: { "auth": auth } } }),
        serde_json::json!({ "auths": { host: { "identitytoken": REFRESH } } }),
        serde_json::json!({ "credHelpers": { host: "brigtest" } }),
        serde_json::json!({ "credsStore": "brigtest" }),
    ] {
        let client = Client::new(with_config(directory.path(), &settings));
        push(&client, &name, &from, None).await.unwrap();
        pull(&client, &name, None).await.unwrap();
    }
    let elsewhere = serde_json::json!({ "auths": { "other.example": { "auth": auth } } });
    let client = Client::new(with_config(directory.path(), &elsewhere));
    let error = pull(&client, &name, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}
