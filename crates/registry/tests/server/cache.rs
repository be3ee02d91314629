//! The pull-through cache.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use brig_images::Digest;
use brig_registry::Upstream;

use crate::support::{Server, noise};

fn cache(root: &std::path::Path, upstream: &str) -> Server {
    Server::start_with(root, |config| config.upstream = Some(Upstream::new(upstream)))
}

#[test]
fn a_cache_fetches_keeps_and_serves_when_upstream_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Server::start(&directory.path().join("upstream"));
    let layer = noise(700_000, 1);
    let first = upstream.push_image("team/app", "1", &layer);
    let cache = cache(&directory.path().join("cache"), &upstream.url());
    let by_tag = || cache.send("GET", "/v2/team/app/manifests/1");
    assert_eq!(by_tag().header("docker-content-digest"), first.to_string());
    let blob = format!("/v2/team/app/blobs/{}", Digest::of(&layer));
    assert_eq!(cache.send("HEAD", &blob).header("content-length"), "700000");
    assert!(cache.send("GET", &blob).body == layer);
    let part = cache.send_with("GET", &blob, &[("Range", "bytes=5-9")], b"");
    assert!(part.status == 206 && part.body == layer[5..10]);
    let second = upstream.push_image("team/app", "1", b"newer");
    assert_eq!(by_tag().header("docker-content-digest"), second.to_string(), "tags move");
    assert_eq!(cache.send("GET", "/v2/team/app/manifests/2").code(), "MANIFEST_UNKNOWN");
    assert_eq!(cache.send("POST", "/v2/team/app/blobs/uploads/").code(), "UNSUPPORTED");
    drop(upstream);
    let stale = by_tag();
    assert_eq!(
        (stale.status, stale.header("docker-content-digest")),
        (200, second.to_string().as_str())
    );
    assert_eq!(cache.send("GET", &format!("/v2/team/app/manifests/{first}")).status, 200);
    assert!(cache.send("GET", &blob).body == layer);
}

/// A registry of one blob that counts how often it is fetched; it sends half, waits for `go`, and sends the rest.
fn scripted(content: Vec<u8>, digest: &Digest, go: Arc<Barrier>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (counted, path) = (Arc::clone(&count), format!("/blobs/{digest}"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (content, path) = (content.clone(), path.clone());
            let (counted, go) = (Arc::clone(&counted), Arc::clone(&go));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    content.len()
                );
                let _ = stream.write_all(answer.as_bytes());
                if head.starts_with("GET") && head.contains(&path) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let (half, rest) = content.split_at(content.len() / 2);
                    let _ = stream.write_all(half);
                    go.wait();
                    let _ = stream.write_all(rest);
                }
            });
        }
    });
    (address, count)
}

#[test]
fn many_who_ask_at_once_share_one_download_and_see_it_grow() {
    const CLIENTS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let content = noise(2_000_000, 7);
    let digest = Digest::of(&content);
    let go = Arc::new(Barrier::new(2));
    let (upstream, fetched) = scripted(content.clone(), &digest, Arc::clone(&go));
    let cache = cache(directory.path(), &format!("http://{upstream}"));
    let path = format!("/v2/a/blobs/{digest}");
    let started = Arc::new(Barrier::new(CLIENTS + 1));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (started, path, content) = (Arc::clone(&started), &path, &content);
            let address = cache.address;
            scope.spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                // The first bytes come while upstream has sent half.
                let mut start = vec![0; 10_000];
                stream.read_exact(&mut start).unwrap();
                started.wait();
                stream.read_to_end(&mut start).unwrap();
                let answer = crate::support::parse(&start);
                assert!(answer.status == 200 && answer.body == *content);
            });
        }
        started.wait();
        go.wait();
    });
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}

#[test]
fn wrong_content_from_upstream_is_never_whole_and_never_kept() {
    let directory = tempfile::tempdir().unwrap();
    let content = noise(300_000, 9);
    let claimed = Digest::of(b"something else");
    // Every attempt may go through at once.
    let go = Arc::new(Barrier::new(1));
    let (upstream, _) = scripted(content.clone(), &claimed, go);
    let cache = cache(directory.path(), &format!("http://{upstream}"));
    let answer = cache.send("GET", &format!("/v2/a/blobs/{claimed}"));
    assert!(answer.body.len() < content.len(), "{} of {}", answer.body.len(), content.len());
    assert_eq!(
        std::fs::read_dir(directory.path().join("content/blobs/sha256")).unwrap().count(),
        0
    );
}
