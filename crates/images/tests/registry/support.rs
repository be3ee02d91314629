//! What the tests of the registry client share: small images, a scripted HTTP server, a real registry.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brig_images::registry::{Client, Config, Retry};
use brig_images::{Descriptor, Digest, Lease, Platform, Store};
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

/// A tar with one file.
pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Stores an image of gzip layers, each a tar of one file with the given content.
pub(crate) fn image(lease: &Lease, platform: &str, contents: &[&[u8]]) -> Descriptor {
    let platform = Platform::parse(platform).unwrap();
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for content in contents {
        let tar = tar("file", content);
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        diff_ids.push(Digest::of(&tar));
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        layers.push(lease.put(media_type, &encoder.finish().unwrap()).unwrap());
    }
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os, "variant": platform.variant,
        "config": { "Cmd": ["/bin/true"] }, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = lease.put(config_type, config.to_string().as_bytes()).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
    });
    let target = lease.put(OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    Descriptor { platform: Some(platform), ..target }
}

/// Stores an index.
pub(crate) fn index(lease: &Lease, manifests: &[Descriptor]) -> Descriptor {
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests,
    });
    lease.put(OCI_INDEX, index.to_string().as_bytes()).unwrap()
}

/// A client that does not wait long.
pub(crate) fn client() -> Client {
    Client::new(config())
}

pub(crate) fn config() -> Config {
    Config {
        retry: Retry {
            attempts: 3,
            pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(2),
        },
        stall: Duration::from_secs(5),
        ..Config::default()
    }
}

/// A request that a [`Server`] saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What a [`Server`] answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(crate) truncate: Option<usize>,
    /// Keep the connection open but silent after so many bytes of the body.
    pub(crate) stall: Option<usize>,
    /// Send the body byte for byte, with this pause after each.
    pub(crate) drip: Option<Duration>,
    /// Break the connection off (RST) instead of ending it.
    pub(crate) reset: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, truncate: None, stall: None, drip: None, reset: false }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// An HTTP server on loopback that answers as its script says. One request a connection.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// The script gets each request and how many with the same method and path came before.
    pub(crate) async fn start(
        script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1", script).await
    }

    pub(crate) async fn start_on(
        address: &str,
        script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { host, seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<Seen>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if head.len() < 64 << 10 => head.push(byte),
            _ => return,
        }
        // A TLS hello is no HTTP: hang up, so that clients learn it at once.
        if head[0] == 0x16 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut seen = Seen {
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let length = seen.headers.get("content-length").and_then(|length| length.parse().ok());
    seen.body = vec![0; length.unwrap_or(0)];
    if stream.read_exact(&mut seen.body).await.is_err() {
        return;
    }
    let before = {
        let mut log = log.lock().unwrap();
        let same = |old: &&Seen| old.method == seen.method && old.path == seen.path;
        let before = log.iter().filter(same).count();
        log.push(seen.clone());
        before
    };
    let reply = script(&seen, before);
    let mut answer = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        answer += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        answer += &format!("{name}: {value}\r\n");
    }
    answer += "\r\n";
    let end =
        reply.truncate.or(reply.stall).map_or(reply.body.len(), |at| at.min(reply.body.len()));
    let body: &[u8] = if seen.method == "HEAD" { b"" } else { &reply.body[..end] };
    let _ = stream.write_all(answer.as_bytes()).await;
    match reply.drip {
        None => drop(stream.write_all(body).await),
        Some(pause) => {
            for byte in body {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
    let _ = stream.flush().await;
    if reply.reset {
        // With data unread on our side and no lingering, closing sends a reset.
        let _ = stream.set_zero_linger();
    }
    if reply.stall.is_some() {
        // Until the client gives up.
        let _ = stream.read_u8().await;
    }
}

/// Serves the content of a store as a registry would, with ranges. `tag` is what every tag stands for.
pub(crate) fn registry_reply(store: &Store, tag: &Descriptor, seen: &Seen) -> Reply {
    let path = seen.path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return Reply::new(200, "{}");
    }
    let version = path.rsplit('/').next().unwrap_or_default();
    let digest = Digest::parse(version).unwrap_or_else(|_| tag.digest.clone());
    let Ok(bytes) = store.blobs().read(&digest, 1 << 30) else {
        return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#);
    };
    if path.contains("/manifests/") {
        let is_index = bytes.windows(11).any(|window| window == b"\"manifests\"");
        let media_type = if is_index { OCI_INDEX } else { OCI_MANIFEST };
        return Reply::new(200, bytes).header("Content-Type", media_type);
    }
    let range = seen.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    match range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok()) {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[start..]).header("Content-Range", range)
        }
        None => Reply::new(200, bytes),
    }
}

/// Debian's docker-registry on a free port, in a directory of its own.
pub(crate) struct Registry {
    pub(crate) host: String,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// `None`, said aloud, where the program is not installed.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &serde_json::Value::Null, &serde_json::Value::Null)
    }

    /// With these settings of `http.tls` and `auth`.
    pub(crate) fn start_with(
        test: &str,
        tls: &serde_json::Value,
        auth: &serde_json::Value,
    ) -> Option<Self> {
        let program = "/usr/bin/docker-registry";
        if !std::path::Path::new(program).exists() {
            skip(test, "docker-registry is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut settings = serde_json::json!({
            "version": "0.1",
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": "127.0.0.1:0", "tls": tls },
        });
        if !auth.is_null() {
            settings["auth"] = auth.clone();
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, settings.to_string()).unwrap();
        let mut process = Command::new(program)
            .args(["serve".as_ref(), file.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let host = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended early");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                break rest[..end.unwrap_or(rest.len())].to_owned();
            }
        };
        // Keep the pipe empty, so that the registry never blocks on its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { host, process, _directory: directory })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says that a test did not run.
#[expect(clippy::print_stderr, reason = "the one place that says what was skipped")]
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}
