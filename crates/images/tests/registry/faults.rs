//! The registry client against servers that misbehave, each a real TCP peer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Reply, Seen, Server, client, config, image, noise, registry_reply, store};
use brig_images::registry::{
    BlobState, Client, Config, Credential, HostConfig, Mirror, Observer, Progress, PullOptions,
    Pulled, Retry,
};
use brig_images::{Descriptor, Digest, ErrorKind, Reference, Result, Store};

/// Something to serve: a store with one image of one large layer.
fn served() -> (tempfile::TempDir, Store, Descriptor, Descriptor) {
    let (directory, store) = store();
    let lease = store.lease().unwrap();
    let target = image(&lease, "linux/amd64", &[&noise(300_000, 1)]);
    store.keep(&target).unwrap();
    let layer = store.image(&target, &amd64()).unwrap().layers[0].clone();
    (directory, store, target, layer)
}

fn amd64() -> brig_images::Platform {
    brig_images::Platform::parse("linux/amd64").unwrap()
}

async fn pull(client: &Client, host: &str, to: &Store) -> Result<Pulled> {
    pull_with(client, host, to, PullOptions::default(), &|_| {}).await
}

async fn pull_with(
    client: &Client,
    host: &str,
    to: &Store,
    options: PullOptions,
    observer: &Observer<'_>,
) -> Result<Pulled> {
    let reference = Reference::parse(&format!("{host}/app:1")).unwrap();
    let choice = brig_images::PlatformChoice::Exactly(amd64());
    let options = PullOptions { platform: choice, ..options };
    client.pull(&reference, &options, to, observer).await
}

fn login() -> PullOptions {
    let (username, password) = ("user".to_owned(), "secret".to_owned());
    PullOptions {
        credential: Some(Credential::Basic { username, password }),
        ..PullOptions::default()
    }
}

/// Everything of the image is here and sound.
fn check(store: &Store, pulled: &Pulled) {
    let image = store.image(&pulled.target, &amd64()).unwrap();
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        store.layer(layer, diff_id).unwrap().finish().unwrap();
    }
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.root().join("leases")).unwrap().count(), 0);
}

fn is_blob(seen: &Seen, blob: &Descriptor) -> bool {
    seen.path.ends_with(&format!("/blobs/{}", blob.digest))
}

#[tokio::test]
async fn a_broken_download_continues_where_it_broke() {
    let (_from, source, target, layer) = served();
    let blob = layer.clone();
    let server = Server::start(move |seen, before| {
        let mut reply = registry_reply(&source, &target, seen);
        if is_blob(seen, &blob) && before < 5 {
            reply.truncate = Some(50_000.min(reply.body.len()));
        }
        reply
    })
    .await;
    let (_to, to) = store();
    let retries = Mutex::new(0);
    let observer = |progress: Progress| {
        if let Progress::Blob(blob) = progress
            && let BlobState::Retrying { .. } = blob.state
        {
            *retries.lock().unwrap() += 1;
        }
    };
    let pulled = pull_with(&client(), &server.host, &to, PullOptions::default(), &observer).await;
    check(&to, &pulled.unwrap());
    let requests: Vec<_> = server.seen().into_iter().filter(|seen| is_blob(seen, &layer)).collect();
    let ranges: Vec<_> = requests.iter().map(|seen| seen.headers.get("range").cloned()).collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=50000-"));
    assert_eq!(ranges[5].as_deref(), Some("bytes=250000-"));
    assert_eq!((ranges.len(), *retries.lock().unwrap()), (6, 5));
}

type Fault = fn(Reply, &Seen, usize) -> Reply;

/// What a registry may do wrong with a blob, and what comes of it.
fn faults() -> [(&'static str, Fault, Option<ErrorKind>); 11] {
    const RIGHT: Option<ErrorKind> = None;
    [
        ("ends each 64 KiB", |reply, _, _| Reply { truncate: Some(64 << 10), ..reply }, RIGHT),
        (
            "resets each 40 KiB",
            |r, _, _| Reply { truncate: Some(40 << 10), reset: true, ..r },
            RIGHT,
        ),
        ("503 three times", |r, _, n| if n < 3 { Reply::new(503, "") } else { r }, RIGHT),
        ("503 for ever", |_, _, _| Reply::new(503, ""), Some(ErrorKind::Unreachable)),
        (
            "429 with Retry-After",
            |r, _, n| if n == 0 { Reply::new(429, "").header("Retry-After", "0") } else { r },
            RIGHT,
        ),
        (
            "redirects in circles",
            |_, seen, _| Reply::new(307, "").header("Location", seen.path.clone()),
            Some(ErrorKind::Unreachable),
        ),
        (
            "drips",
            |r, _, _| Reply { drip: Some(Duration::from_millis(20)), ..r },
            Some(ErrorKind::Unreachable),
        ),
        (
            "drips once",
            |r, _, n| if n == 0 { Reply { drip: Some(Duration::from_millis(20)), ..r } } else { r },
            RIGHT,
        ),
        (
            "wrong bytes",
            |mut r, _, _| {
                r.body[100] ^= 1;
                r
            },
            Some(ErrorKind::Integrity),
        ),
        (
            "too short",
            |mut r, _, _| {
                r.body.truncate(1000);
                r
            },
            Some(ErrorKind::Integrity),
        ),
        (
            "wrong range",
            |mut r, seen, n| match (n, seen.headers.contains_key("range")) {
                (0, _) => Reply { truncate: Some(40_000), ..r },
                (_, true) => {
                    r.headers.retain(|(name, _)| name != "Content-Range");
                    r.header("Content-Range", "bytes 5-9/10")
                }
                _ => r,
            },
            RIGHT,
        ),
    ]
}

#[tokio::test]
async fn every_fault_of_a_registry_is_survived_or_told() {
    for (what, fault, wanted) in faults() {
        let (_from, source, target, layer) = served();
        let blob = layer.clone();
        let server = Server::start(move |seen, before| {
            let reply = registry_reply(&source, &target, seen);
            if is_blob(seen, &blob) { fault(reply, seen, before) } else { reply }
        })
        .await;
        let (_to, to) = store();
        let retry = Retry { attempts: 5, ..config().retry };
        let client = Client::new(Config { stall: Duration::from_millis(500), retry, ..config() });
        let pulled = pull(&client, &server.host, &to).await;
        match (pulled, wanted) {
            (Ok(pulled), None) => check(&to, &pulled),
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{what}: {error}");
                assert!(!to.blobs().contains(&layer.digest), "{what}");
                assert!(to.images().unwrap().is_empty(), "{what}");
            }
            (pulled, _) => panic!("{what}: {pulled:?}"),
        }
        let tries = server.seen().iter().filter(|seen| is_blob(seen, &layer)).count();
        assert!(tries <= 60, "{what}: {tries} requests");
    }
}

#[tokio::test]
async fn the_next_process_continues_a_download() {
    let (_from, source, target, layer) = served();
    let (blob, up) = (layer.clone(), Arc::new(Mutex::new(false)));
    let is_up = Arc::clone(&up);
    let server = Server::start(move |seen, _| {
        let mut reply = registry_reply(&source, &target, seen);
        if is_blob(seen, &blob) && !*is_up.lock().unwrap() {
            reply.truncate = (!seen.headers.contains_key("range")).then_some(120_000).or(Some(0));
        }
        reply
    })
    .await;
    let (directory, to) = store();
    let error = pull(&client(), &server.host, &to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    drop(to);
    *up.lock().unwrap() = true;
    let to = Store::open(directory.path()).unwrap();
    check(&to, &pull(&client(), &server.host, &to).await.unwrap());
    let last = server.seen().into_iter().rfind(|seen| is_blob(seen, &layer)).unwrap();
    assert_eq!(last.headers.get("range").map(String::as_str), Some("bytes=120000-"));
}

#[tokio::test]
async fn a_partial_file_damaged_by_a_crash_is_fetched_anew() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, _| registry_reply(&source, &target, seen)).await;
    let (_to, to) = store();
    let partial = to.root().join(format!("ingest/sha256-{}", layer.digest.hex()));
    std::fs::write(&partial, vec![0; 100_000]).unwrap();
    check(&to, &pull(&client(), &server.host, &to).await.unwrap());
}

#[tokio::test]
async fn fifty_pulls_at_once_fetch_each_blob_once() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, _| registry_reply(&source, &target, seen)).await;
    let (_to, to) = store();
    let client = client();
    let pulls = (0..50).map(|_| pull(&client, &server.host, &to));
    let pulled = futures_util::future::join_all(pulls).await;
    for pulled in pulled {
        assert!(to.blobs().contains(&pulled.unwrap().target.digest));
    }
    let seen = server.seen();
    assert_eq!(seen.iter().filter(|seen| is_blob(seen, &layer)).count(), 1);
    // The layer and the configuration.
    assert_eq!(seen.iter().filter(|seen| seen.path.contains("/blobs/")).count(), 2);
    assert_eq!(std::fs::read_dir(to.root().join("leases")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_registry_that_cannot_resume_is_asked_for_all() {
    let (_from, source, target, layer) = served();
    let blob = layer.clone();
    let server = Server::start(move |seen, before| {
        let mut plain = seen.clone();
        plain.headers.remove("range");
        let mut reply = registry_reply(&source, &target, &plain);
        match (is_blob(seen, &blob), before) {
            (true, 0) => reply.truncate = Some(1000),
            // A partial answer that begins elsewhere.
            (true, 1) => {
                reply.status = 206;
                reply = reply.header("Content-Range", "bytes 0-9/10");
            }
            _ => {}
        }
        reply
    })
    .await;
    let (_to, to) = store();
    check(&to, &pull(&client(), &server.host, &to).await.unwrap());
}

#[tokio::test]
async fn wrong_content_is_refused_and_never_stored() {
    let (_from, source, target, layer) = served();
    for what in ["layer", "manifest", "length"] {
        let (source, target, blob) = (source.clone(), target.clone(), layer.clone());
        let server = Server::start(move |seen, _| {
            let mut reply = registry_reply(&source, &target, seen);
            match what {
                "layer" if is_blob(seen, &blob) => reply.body[1000] ^= 1,
                "manifest" if seen.path.contains("/manifests/") => {
                    let digest = Digest::of(b"other").to_string();
                    reply = reply.header("Docker-Content-Digest", digest);
                }
                "length" if is_blob(seen, &blob) => reply.body.extend(b"more"),
                _ => {}
            }
            reply
        })
        .await;
        let (_to, to) = store();
        let error = pull(&client(), &server.host, &to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {error}");
        assert!(!to.blobs().contains(&layer.digest), "{what}");
        assert!(to.images().unwrap().is_empty(), "{what}");
        to.collect_garbage(&[], Duration::ZERO).unwrap();
        assert!(to.blobs().list().unwrap().is_empty(), "{what}");
        assert_eq!(std::fs::read_dir(to.root().join("ingest")).unwrap().count(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, before| {
        if seen.path != "/v2/" && before == 0 && !is_blob(seen, &layer) {
            return Reply::new(503, "");
        }
        if is_blob(seen, &layer) && before == 0 {
            return Reply::new(429, "").header("Retry-After", "1");
        }
        registry_reply(&source, &target, seen)
    })
    .await;
    let (_to, to) = store();
    let started = std::time::Instant::now();
    check(&to, &pull(&client(), &server.host, &to).await.unwrap());
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_registry_is_given_up_and_resumed() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, before| {
        let mut reply = registry_reply(&source, &target, seen);
        if is_blob(seen, &layer) && before == 0 {
            reply.stall = Some(10_000);
        }
        reply
    })
    .await;
    let (_to, to) = store();
    let client = Client::new(Config { stall: Duration::from_millis(300), ..config() });
    check(&to, &pull(&client, &server.host, &to).await.unwrap());
}

#[tokio::test]
async fn failures_have_their_kind_and_say_what_to_do() {
    let (_to, to) = store();
    let unknown = Server::start(|seen, _| match seen.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not known"}]}"#),
    });
    let unknown = unknown.await;
    let denied = Server::start(|_, _| Reply::new(403, "")).await;
    let artifact = Server::start(|_, _| {
        let digest = Digest::of(b"");
        let config =
            format!(r#"{{"mediaType":"application/x-chart","digest":"{digest}","size":0}}"#);
        let body = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        Reply::new(200, body).header("Content-Type", crate::support::OCI_MANIFEST)
    });
    let artifact = artifact.await;
    for (host, kind, text) in [
        (unknown.host.as_str(), ErrorKind::NotFound, "not known"),
        (&denied.host, ErrorKind::Denied, "need a login"),
        (&artifact.host, ErrorKind::Unsupported, "application/x-chart"),
        ("127.0.0.1:1", ErrorKind::Unreachable, "127.0.0.1:1: nothing answers there"),
        ("registry.invalid", ErrorKind::Unreachable, "registry.invalid: its name is not known"),
    ] {
        let error = pull(&client(), host, &to).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{host}: {error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let named = pull(&client(), &unknown.host, &to).await.unwrap_err().to_string();
    assert!(named.contains(&format!("{}/app:1", unknown.host)), "{named}");
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_credentials_along() {
    let (_from, source, target, layer) = served();
    let content = source.clone();
    // Another loopback address is another host.
    let storage = Server::start_on("127.0.0.2", move |seen, _| {
        let path = seen.path.replace("/signed", "/blobs");
        registry_reply(
            &content,
            &Descriptor::new("", Digest::of(b""), 0),
            &Seen { path, ..seen.clone() },
        )
    });
    let storage = storage.await;
    let (elsewhere, blob) = (storage.host.clone(), layer.clone());
    let server = Server::start(move |seen, _| {
        if !seen.headers.contains_key("authorization") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if is_blob(seen, &blob) {
            let location = format!("http://{elsewhere}/signed/{}", blob.digest);
            return Reply::new(307, "").header("Location", location);
        }
        registry_reply(&source, &target, seen)
    })
    .await;
    let (_to, to) = store();
    check(&to, &pull_with(&client(), &server.host, &to, login(), &|_| {}).await.unwrap());
    assert_eq!(storage.seen().len(), 1);
    assert!(!storage.seen()[0].headers.contains_key("authorization"));
}

/// A registry that wants tokens from `realm`, and refuses anything else.
async fn token_registry(source: Store, target: Descriptor, realm: String) -> Server {
    Server::start(move |seen, before| {
        let authorization = seen.headers.get("authorization").map(String::as_str);
        // The first token ends early: the second request for the same thing needs a new one.
        if authorization != Some("Bearer good") || (seen.path.contains("/blobs/") && before == 0) {
            let challenge =
                format!(r#"Bearer realm="{realm}",service="registry",scope="repository:app:pull""#);
            return Reply::new(401, "").header("WWW-Authenticate", challenge);
        }
        registry_reply(&source, &target, seen)
    })
    .await
}

#[tokio::test]
async fn tokens_are_fetched_with_credentials_and_renewed() {
    let (_from, source, target, _layer) = served();
    let tokens =
        Server::start(|_, _| Reply::new(200, r#"{"token":"good","expires_in":300}"#)).await;
    let server = token_registry(source, target, format!("http://{}/token", tokens.host)).await;
    let (_to, to) = store();
    check(&to, &pull_with(&client(), &server.host, &to, login(), &|_| {}).await.unwrap());
    let asked = tokens.seen();
    assert!(asked[0].path.contains("service=registry"), "{}", asked[0].path);
    assert!(asked[0].path.contains("scope=repository%3Aapp%3Apull"), "{}", asked[0].path);
    // base64 of user:secret
    let basic = asked[0].headers.get("authorization").map(String::as_str);
    assert_eq!(basic, Some("Basic dXNlcjpzZWNyZXQ="));
    assert!(asked.len() > 1, "refused tokens are renewed");
}

#[tokio::test]
async fn a_foreign_token_service_gets_no_credentials() {
    let (_from, source, target, _layer) = served();
    let tokens =
        Server::start_on("127.0.0.2", |_, _| Reply::new(200, r#"{"access_token":"good"}"#));
    let tokens = tokens.await;
    let server =
        token_registry(source.clone(), target.clone(), format!("http://{}/t", tokens.host)).await;
    let (_to, to) = store();
    check(&to, &pull_with(&client(), &server.host, &to, login(), &|_| {}).await.unwrap());
    assert!(tokens.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
    // Unless it is configured.
    let realms = vec![tokens.host.clone()];
    let mut config = config();
    config.hosts.insert(server.host.clone(), HostConfig { realms, ..HostConfig::default() });
    let (_to, to) = store();
    let client = Client::new(config);
    pull_with(&client, &server.host, &to, login(), &|_| {}).await.unwrap();
    assert!(tokens.seen().iter().any(|seen| seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn credentials_come_from_config_json_and_helpers() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("docker-credential-test");
    let script = "#!/bin/sh\nread -r host; echo '{\"Username\":\"user\",\"Secret\":\"secret\"}'\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    for text in
        [r#"{"auths":{"HOST":{"auth":"dXNlcjpzZWNyZXQ="}}}"#, r#"{"credHelpers":{"HOST":"test"}}"#]
    {
        let (_from, source, target, _layer) = served();
        let server = Server::start(move |seen, _| {
            match seen.headers.get("authorization").map(String::as_str) {
                Some("Basic dXNlcjpzZWNyZXQ=") => registry_reply(&source, &target, seen),
                _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            }
        })
        .await;
        let file = directory.path().join("config.json");
        std::fs::write(file, text.replace("HOST", &server.host)).unwrap();
        let mut config = config();
        config.credentials.docker_config = Some(directory.path().to_owned());
        config.credentials.helpers = vec![directory.path().to_owned()];
        let (_to, to) = store();
        check(&to, &pull(&Client::new(config), &server.host, &to).await.unwrap());
    }
}

#[tokio::test]
async fn a_mirror_is_tried_first_and_does_not_have_to_work() {
    let (_from, source, target, layer) = served();
    let origin_store = (source.clone(), target.clone());
    let origin =
        Server::start(move |seen, _| registry_reply(&origin_store.0, &origin_store.1, seen)).await;
    for broken in [false, true] {
        let (source, target, blob) = (source.clone(), target.clone(), layer.clone());
        let mirror = Server::start(move |seen, _| {
            let mut reply = registry_reply(&source, &target, seen);
            if broken && is_blob(seen, &blob) {
                reply.body[0] ^= 1;
            }
            reply
        })
        .await;
        let mut config = config();
        let mirrors = ["http://127.0.0.1:1".to_owned(), format!("http://{}", mirror.host)];
        let mirrors = mirrors.iter().map(|mirror| Mirror::at(mirror)).collect();
        config.hosts.insert(origin.host.clone(), HostConfig { mirrors, ..HostConfig::default() });
        let (_to, to) = store();
        let before = origin.seen().len();
        check(&to, &pull(&Client::new(config), &origin.host, &to).await.unwrap());
        assert_eq!(origin.seen().len() > before, broken);
        assert!(mirror.seen().iter().any(|seen| is_blob(seen, &layer)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_download_a_blob_once() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, _| registry_reply(&source, &target, seen)).await;
    let (directory, _) = store();
    let pulls = (0..8).map(|_| {
        // Separate clients and stores: as separate processes.
        let (host, to) = (server.host.clone(), Store::open(directory.path()).unwrap());
        tokio::spawn(async move { pull(&client(), &host, &to).await.unwrap() })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap();
    }
    assert_eq!(server.seen().iter().filter(|seen| is_blob(seen, &layer)).count(), 1);
}

#[tokio::test]
async fn a_cancelled_pull_leaves_only_what_can_be_resumed() {
    let (_from, source, target, layer) = served();
    let server = Server::start(move |seen, _| {
        let mut reply = registry_reply(&source, &target, seen);
        if is_blob(seen, &layer) && !seen.headers.contains_key("range") {
            reply.stall = Some(100_000);
        }
        reply
    })
    .await;
    let (_to, to) = store();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
    let observer = move |progress| {
        if let Progress::Blob(blob) = progress
            && let BlobState::Transferring { total, .. } = blob.state
            && total > 200_000
        {
            let _ = sender.try_send(());
        }
    };
    let client = client();
    tokio::select! {
        result = pull_with(&client, &server.host, &to, PullOptions::default(), &observer) => panic!("{result:?}"),
        _ = receiver.recv() => {}
    }
    check(&to, &pull(&client, &server.host, &to).await.unwrap());
}

/// Pulls into a store on a file system too small for it. Run by the test below, which made that.
#[tokio::test]
#[ignore = "needs the file system that a_full_disk_is_told_and_leaves_nothing makes"]
async fn pull_onto_a_full_disk() {
    let (_from, source, target, _layer) = served();
    let server = Server::start(move |seen, _| registry_reply(&source, &target, seen)).await;
    let to = Store::open(std::env::var_os("BRIG_TEST_SMALL_DISK").unwrap()).unwrap();
    let error = pull(&client(), &server.host, &to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    assert!(to.images().unwrap().is_empty());
    to.collect_garbage(&[], Duration::ZERO).unwrap();
    assert!(to.blobs().list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(to.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mount =
        "mount -t tmpfs -o size=200k none \"$BRIG_TEST_SMALL_DISK\" || exit 77; exec \"$0\" \"$@\"";
    // A mount namespace of its own: nothing appears on the host, nothing is left.
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", mount])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "faults::pull_onto_a_full_disk"])
        .env("BRIG_TEST_SMALL_DISK", directory.path())
        .output();
    match output {
        Ok(output) if output.status.code() == Some(77) => skip_full_disk("tmpfs cannot be mounted"),
        Ok(output) if !output.status.success() && output.stdout.is_empty() => {
            skip_full_disk(&String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(error) => skip_full_disk(&error.to_string()),
    }
}

fn skip_full_disk(why: &str) {
    crate::support::skip("a_full_disk_is_told_and_leaves_nothing", why);
}

/// Pulls from the server below until killed by it.
#[tokio::test]
#[ignore = "is killed by a_killed_pull_leaves_a_sound_store"]
async fn pull_until_killed() {
    let to = Store::open(std::env::var_os("BRIG_TEST_STORE").unwrap()).unwrap();
    let host = std::env::var("BRIG_TEST_HOST").unwrap();
    pull(&client(), &host, &to).await.unwrap();
}

#[tokio::test]
async fn a_killed_pull_leaves_a_sound_store() {
    let (_from, source, target, layer) = served();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let blob = layer.clone();
    let server = Server::start(move |seen, before| {
        let mut reply = registry_reply(&source, &target, seen);
        if is_blob(seen, &blob) && before == 0 {
            reply.stall = Some(200_000);
            let _ = sender.try_send(());
        }
        reply
    })
    .await;
    let (directory, to) = store();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "faults::pull_until_killed"])
        .env("BRIG_TEST_STORE", directory.path())
        .env("BRIG_TEST_HOST", &server.host)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    receiver.recv().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(to.images().unwrap().is_empty());
    // The dead process's lease holds nothing, its partial download stays.
    to.collect_garbage(&[], brig_images::PARTIAL_AGE).unwrap();
    assert!(to.blobs().list().unwrap().is_empty());
    check(&to, &pull(&client(), &server.host, &to).await.unwrap());
}
