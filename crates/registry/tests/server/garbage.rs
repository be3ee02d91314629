//! Garbage collection while serving.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{MANIFEST, Server, manifest, noise};

#[test]
fn what_a_manifest_refers_to_stays_and_the_rest_goes_after_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let kept = server.push_image("a", "1", &noise(10_000, 1));
    let dropped = server.push_image("a", "2", &noise(20_000, 2));
    let loose = server.push_blob("a", b"loose");
    let place = server.send("POST", "/v2/a/blobs/uploads/").header("location").to_owned();
    assert_eq!(server.send_with("PATCH", &place, &[], b"half").status, 202);
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{dropped}")).status, 202);
    let long = Duration::from_secs(3600);
    // The manifest has no name any more and no grace of its own; its blobs do.
    assert_eq!(server.registry.collect_garbage(long).unwrap().blobs, 1);
    assert_eq!(server.send("GET", &format!("/v2/a/blobs/{loose}")).status, 200);
    let collected = server.registry.collect_garbage(Duration::ZERO).unwrap();
    assert_eq!(collected.blobs, 2);
    assert!(collected.bytes > 20_000);
    assert_eq!(server.send("GET", &format!("/v2/a/blobs/{loose}")).code(), "BLOB_UNKNOWN");
    assert_eq!(server.send("GET", &format!("/v2/a/manifests/{kept}")).status, 200);
    assert_eq!(server.send("GET", &place).status, 204, "an upload under way is someone's");
    drop(server);
    let server = Server::start(directory.path());
    server.registry.collect_garbage(Duration::ZERO).unwrap();
    assert_eq!(server.send("GET", &place).code(), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn pushes_that_race_with_collection_lose_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    // One collection for each image that starts to come: often, yet not so that nothing ever gets through.
    let (starting, started) = mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        let registry = server.registry.clone();
        scope.spawn(move || {
            for () in started {
                // No grace at all: only leases and manifests protect.
                registry.collect_garbage(Duration::ZERO).unwrap();
            }
        });
        for pusher in 0..3_u64 {
            let (server, starting) = (&server, starting.clone());
            scope.spawn(move || {
                for round in 0..10 {
                    push_until_taken(server, pusher, round, &starting);
                }
            });
        }
        drop(starting);
    });
    for pusher in 0..3_u64 {
        for round in 0..10_u64 {
            let tag = server.send("GET", &format!("/v2/r{pusher}/manifests/{round}"));
            assert_eq!(tag.status, 200);
            let layer = tag.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
            let blob = server.send("GET", &format!("/v2/r{pusher}/blobs/{layer}"));
            assert!(blob.body == noise(5000, pusher * 100 + round), "{pusher} {round}");
        }
    }
}

/// Without grace a blob may go before its manifest comes; then the manifest is refused, never taken incomplete.
fn push_until_taken(server: &Server, pusher: u64, round: u64, starting: &mpsc::SyncSender<()>) {
    let name = format!("r{pusher}");
    let content = noise(5000, pusher * 100 + round);
    for _ in 0..20 {
        starting.send(()).unwrap();
        let config = server.push_blob(&name, b"{}");
        let layer = server.push_blob(&name, &content);
        let text = manifest(&config, 2, &layer, content.len());
        let path = format!("/v2/{name}/manifests/{round}");
        let put = server.send_with("PUT", &path, &[("Content-Type", MANIFEST)], text.as_bytes());
        match put.status {
            201 => return,
            404 => assert_eq!(put.code(), "MANIFEST_BLOB_UNKNOWN"),
            other => panic!("{other}: {put:?}"),
        }
    }
    panic!("collection never lets a push through");
}
