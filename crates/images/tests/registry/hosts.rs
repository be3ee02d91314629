//! Directories of host settings with Debian's docker-registry over TLS, which demands a client certificate.

use std::fs;
use std::path::Path;
use std::process::Command;

use brig_images::registry::{Client, PullOptions, PushOptions};
use brig_images::{Descriptor, ErrorKind, Reference, Result, Store};

use crate::support::{Registry, Server, client, config, image, noise, registry_reply, skip, store};

/// Makes in `directory` an authority `ca`, and signed by it `server` for 127.0.0.1 and `client`.
fn make_certificates(test: &str, directory: &Path) -> bool {
    let script = "
        set -e
        curve='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'
        openssl req -x509 $curve -subj /CN=authority -keyout ca.key -out ca.pem
        for who in server client; do
            openssl req $curve -subj /CN=$who -keyout $who.key -out $who.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\
                -extfile $who.ext -out $who.pem
        done";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output();
    let made = made.is_ok_and(|output| output.status.success());
    if !made {
        skip(test, "openssl is not installed");
    }
    made
}

struct Fixture {
    work: tempfile::TempDir,
    registry: Registry,
    from: Store,
    target: Descriptor,
    _from: tempfile::TempDir,
}

impl Fixture {
    fn start(test: &str) -> Option<Self> {
        let work = tempfile::tempdir().unwrap();
        if !make_certificates(test, work.path()) {
            return None;
        }
        let path = |name: &str| work.path().join(name);
        let tls = serde_json::json!({
            "certificate": path("server.pem"), "key": path("server.key"), "clientcas": [path("ca.pem")],
        });
        let registry = Registry::start_with(test, &tls, &serde_json::Value::Null)?;
        let (_from, from) = store();
        let target = image(&from.lease().unwrap(), "linux/amd64", &[&noise(50_000, 3)]);
        Some(Self { work, registry, from, target, _from })
    }

    /// A directory of host directories. Each file is copied from the certificates or, where there is none of that name,
    /// written.
    fn directory(&self, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let directory = self.work.path().join(name);
        for (path, content) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match self.work.path().join(content) {
                source if source.is_file() => drop(fs::copy(source, path).unwrap()),
                _ => fs::write(path, content).unwrap(),
            }
        }
        directory
    }

    fn name(&self, host: &str) -> Reference {
        let name = Reference::parse(&format!("{host}/app:1")).unwrap();
        self.from.tag(&name, &self.target).unwrap();
        name
    }

    async fn push(&self, client: &Client, name: &Reference) -> Result<()> {
        client.push(name, &PushOptions::default(), &self.from, &|_| {}).await.map(drop)
    }
}

fn with(directory: &Path) -> Client {
    let mut config = config();
    config.read_host_directories(directory).unwrap();
    Client::new(config)
}

async fn pull(client: &Client, name: &Reference) -> Result<()> {
    let (_directory, to) = store();
    client.pull(name, &PullOptions::default(), &to, &|_| {}).await.map(drop)
}

#[tokio::test]
async fn docker_s_certificate_files_let_in_and_tell_who_answers() {
    const TEST: &str = "docker_s_certificate_files_let_in_and_tell_who_answers";
    let Some(fixture) = Fixture::start(TEST) else { return };
    let host = fixture.registry.host.clone();
    let name = fixture.name(&host);
    let file = |name: &str| format!("{host}/{name}");
    let (ca, certificate, key) = (file("ca.crt"), file("client.cert"), file("client.key"));
    let pair = [(certificate.as_str(), "client.pem"), (key.as_str(), "client.key")];
    let whole = [(ca.as_str(), "ca.pem"), pair[0], pair[1]];
    let client = with(&fixture.directory("whole", &whole));
    fixture.push(&client, &name).await.unwrap();
    pull(&client, &name).await.unwrap();
    // Without the certificate the registry hangs up; with a stranger's authority we do.
    let nameless = with(&fixture.directory("nameless", &whole[..1]));
    let stranger = [(ca.as_str(), "client.pem"), pair[0], pair[1]];
    let stranger = with(&fixture.directory("stranger", &stranger));
    for client in [nameless, stranger] {
        let error = pull(&client, &name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }
}

#[tokio::test]
async fn hosts_toml_names_mirrors_before_the_server() {
    const TEST: &str = "hosts_toml_names_mirrors_before_the_server";
    let Some(fixture) = Fixture::start(TEST) else { return };
    let Some(origin) = Registry::start(TEST) else { return };
    let (mirror, name) = (&fixture.registry.host, fixture.name(&origin.host));
    let path = |name: &str| fixture.work.path().join(name).display().to_string();
    let said = |how: &str| {
        format!(
            "server = 'http://{}'\n[host.'http://127.0.0.1:1']\n[host.'https://{mirror}']\n{how}\n\
             client = [['{}', '{}']]\n",
            origin.host,
            path("client.pem"),
            path("client.key")
        )
    };
    let toml = format!("{}/hosts.toml", origin.host);
    let verified = said(&format!("ca = '{}'", path("ca.pem")));
    let unverified = said("skip_verify = true");
    let deaf = said(&format!("ca = '{}'", path("client.pem")));
    let verified = with(&fixture.directory("verified", &[(&toml, &verified)]));
    let unverified = with(&fixture.directory("unverified", &[(&toml, &unverified)]));
    let deaf = with(&fixture.directory("deaf", &[(&toml, &deaf)]));
    // Only the mirror has it.
    let [ca, certificate, key] =
        ["ca.crt", "a.cert", "a.key"].map(|file| format!("{mirror}/{file}"));
    let there = [(&*ca, "ca.pem"), (&*certificate, "client.pem"), (&*key, "client.key")];
    let direct = with(&fixture.directory("direct", &there));
    fixture.push(&direct, &fixture.name(mirror)).await.unwrap();
    for client in [&verified, &unverified] {
        pull(client, &name).await.unwrap();
    }
    let error = pull(&deaf, &name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "only the server can be reached: {error}");
    // Only the server has it.
    let other = Reference::parse(&format!("{}/other:1", origin.host)).unwrap();
    fixture.from.tag(&other, &fixture.target).unwrap();
    fixture.push(&client(), &other).await.unwrap();
    for client in [&verified, &deaf] {
        pull(client, &other).await.unwrap();
    }
}

#[tokio::test]
async fn a_mirror_gets_its_headers_and_the_registry_s_name_and_nobody_else_does() {
    let (_from, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[&noise(1000, 5)]);
    let (content, tag) = (from.clone(), target.clone());
    let storage =
        Server::start_on("127.0.0.2", move |seen, _| registry_reply(&content, &tag, seen));
    let storage = storage.await;
    let elsewhere = storage.host.clone();
    let mirror = Server::start(move |seen, _| {
        let path = seen.path.split('?').next().unwrap_or_default();
        if path.contains("/blobs/") {
            let location = format!("http://{elsewhere}{path}");
            return crate::support::Reply::new(307, "").header("Location", location);
        }
        registry_reply(&from, &target, seen)
    })
    .await;
    let work = tempfile::tempdir().unwrap();
    let directory = work.path().join("registry.example");
    fs::create_dir(&directory).unwrap();
    let text = format!("[host.'http://{}']\nheader = {{ x-key = 'hidden' }}\n", mirror.host);
    fs::write(directory.join("hosts.toml"), text).unwrap();
    let name = Reference::parse("registry.example/app:1").unwrap();
    pull(&with(work.path()), &name).await.unwrap();
    for seen in mirror.seen() {
        assert_eq!(seen.headers.get("x-key").map(String::as_str), Some("hidden"));
        assert!(seen.path.ends_with("?ns=registry.example"), "{}", seen.path);
    }
    assert!(!storage.seen().is_empty());
    assert!(storage.seen().iter().all(|seen| !seen.headers.contains_key("x-key")));
}
