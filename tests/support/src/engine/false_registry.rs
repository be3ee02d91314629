//! A registry that serves what a test gives it, right or wrong, on loopback in the engine's network namespace.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::json;

use super::Engine;
use super::image::sha256;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry has: bytes by the last part of their path, a tag or a digest, which they need not match.
#[derive(Debug, Clone, Default)]
pub struct Content(pub BTreeMap<String, Vec<u8>>);

impl Content {
    /// An image called `latest` whose layers are these tar archives, and the digests of its manifest and layers.
    #[must_use]
    pub fn image(layers: &[Vec<u8>]) -> (Self, String, Vec<String>) {
        let mut content = Self::default();
        let digests: Vec<String> = layers.iter().map(|layer| content.add(layer)).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let config = config.to_string().into_bytes();
        let layers = layers.iter().zip(&digests).map(|(layer, digest)| {
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            json!({ "mediaType": media_type, "digest": digest, "size": layer.len() })
        });
        let layers: Vec<_> = layers.collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": content.add(&config), "size": config.len(),
            },
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = content.add(&manifest);
        content.0.insert("latest".to_owned(), manifest);
        (content, digest, digests)
    }

    fn add(&mut self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        self.0.insert(digest.clone(), bytes.to_vec());
        digest
    }
}

/// The running server; it ends with this.
#[derive(Debug)]
pub struct FalseRegistry {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl FalseRegistry {
    /// Starts to serve.
    #[must_use]
    pub fn start(engine: &Engine, content: Content) -> Self {
        let namespace = PathBuf::from(format!("/proc/{}/ns/net", engine.holder()));
        let bind = || Ok(TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = Arc::new(brig_network::netns::run_in(&namespace, bind).unwrap());
        let address = listener.local_addr().unwrap();
        let (accepting, content) = (Arc::clone(&listener), Arc::new(content));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let content = Arc::clone(&content);
                // A client that leaves is the client's affair.
                std::thread::spawn(move || drop(serve(&stream, &content)));
            }
        });
        Self { listener, address, thread: Some(thread) }
    }

    /// The name of an image in it, without tag or digest.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for FalseRegistry {
    fn drop(&mut self) {
        // Ends the wait for the next connection.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: &TcpStream, content: &Content) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = first.clone();
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let empty = Vec::new();
    let found = match path {
        "/v2/" => Some(&empty),
        path => content.0.get(path.rsplit('/').next().unwrap_or_default()),
    };
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let body = found.unwrap_or(&empty);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(body)?;
    }
    Ok(())
}
