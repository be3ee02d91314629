//! The client with Debian's docker-registry, and skopeo as the other client.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{Registry, client, image, index, noise, skip, store};
use brig_images::archive::{self, SavedImage};
use brig_images::registry::{
    BlobState, Client, HostConfig, Progress, PullOptions, PushOptions, Security,
};
use brig_images::{Platform, PlatformChoice, Reference, Store};

fn name(registry: &Registry, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", registry.host)).unwrap()
}

fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

/// Runs skopeo; false, said aloud, where it is not installed.
fn skopeo(test: &str, arguments: &[&str]) -> bool {
    let Ok(output) = Command::new("skopeo").args(arguments).output() else {
        skip(test, "skopeo is not installed");
        return false;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {error}");
    true
}

fn check(store: &Store, word: &str, on: &str) -> brig_images::Image {
    let found = store.resolve(word).unwrap();
    let image = store.image(found.selected(), &platform(on)).unwrap();
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        store.layer(layer, diff_id).unwrap().finish().unwrap();
    }
    image
}

#[tokio::test]
async fn an_image_goes_to_a_registry_and_back() {
    let Some(registry) = Registry::start("an_image_goes_to_a_registry_and_back") else { return };
    let (_a, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[&noise(2_000_000, 1), b"small"]);
    let reference = name(&registry, "team/app:1");
    from.tag(&reference, &target).unwrap();
    let states = Mutex::new(Vec::new());
    let observer = |progress| {
        if let Progress::Blob(blob) = progress {
            states.lock().unwrap().push(blob.state);
        }
    };
    client().push(&reference, &PushOptions::default(), &from, &observer).await.unwrap();
    assert_eq!(states.lock().unwrap().iter().filter(|s| **s == BlobState::Complete).count(), 4);
    states.lock().unwrap().clear();
    client().push(&reference, &PushOptions::default(), &from, &observer).await.unwrap();
    assert_eq!(states.lock().unwrap().iter().filter(|s| **s == BlobState::Exists).count(), 3);

    let choice = PlatformChoice::Exactly(platform("linux/amd64"));
    let options = PullOptions { platform: choice, ..PullOptions::default() };
    let (_b, to) = store();
    let pulled = client().pull(&reference, &options, &to, &|_| {}).await.unwrap();
    assert_eq!((pulled.target.digest.clone(), pulled.changed), (target.digest.clone(), true));
    check(&to, &reference.canonical(), "linux/amd64");
    let again = client().pull(&reference, &options, &to, &|_| {}).await.unwrap();
    assert!(!again.changed);
    let by_digest = reference.at_digest(target.digest.clone());
    let (_c, to) = store();
    client().pull(&by_digest, &options, &to, &|_| {}).await.unwrap();
    check(&to, &by_digest.canonical(), "linux/amd64");
    let missing = client().pull(&name(&registry, "team/app:2"), &options, &to, &|_| {}).await;
    assert_eq!(missing.unwrap_err().kind(), brig_images::ErrorKind::NotFound);
}

#[tokio::test]
async fn layers_of_another_repository_are_mounted() {
    let Some(registry) = Registry::start("layers_of_another_repository_are_mounted") else {
        return;
    };
    let (_a, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[&noise(100_000, 2)]);
    for repository in ["one/app:1", "two/app:1"] {
        from.tag(&name(&registry, repository), &target).unwrap();
    }
    let mounted = Mutex::new(Vec::new());
    for repository in ["one/app:1", "two/app:1"] {
        let reference = name(&registry, repository);
        let push = client();
        let observer = |progress| {
            if let Progress::Blob(blob) = progress
                && let BlobState::Mounted { from } = blob.state
            {
                mounted.lock().unwrap().push(from);
            }
        };
        push.push(&reference, &PushOptions::default(), &from, &observer).await.unwrap();
    }
    assert_eq!(*mounted.lock().unwrap(), ["one/app"]);
}

#[tokio::test]
async fn an_index_keeps_its_platforms() {
    let Some(registry) = Registry::start("an_index_keeps_its_platforms") else { return };
    let (_a, from) = store();
    let lease = from.lease().unwrap();
    let amd64 = image(&lease, "linux/amd64", &[b"shared", b"amd64"]);
    let arm = image(&lease, "linux/arm/v7", &[b"shared", b"arm"]);
    let multi = index(&lease, &[amd64, arm.clone()]);
    let reference = name(&registry, "multi:1");
    from.tag(&reference, &multi).unwrap();
    client().push(&reference, &PushOptions::default(), &from, &|_| {}).await.unwrap();

    let pull = |choice| PullOptions { platform: choice, ..PullOptions::default() };
    let (_b, to) = store();
    let one = pull(PlatformChoice::Exactly(platform("linux/arm/v7")));
    let pulled = client().pull(&reference, &one, &to, &|_| {}).await.unwrap();
    assert_eq!((&pulled.target.digest, pulled.manifests.len()), (&multi.digest, 1));
    assert_eq!(to.manifests(&multi).unwrap()[0].digest, arm.digest);
    // What is incomplete is not pushed as if it were whole.
    let other = name(&registry, "arm:1");
    to.tag(&other, &multi).unwrap();
    let options = PushOptions { platform: Some(PlatformChoice::All), ..PushOptions::default() };
    let error = client().push(&other, &options, &to, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), brig_images::ErrorKind::NotFound, "{error}");
    let choice = PlatformChoice::Exactly(platform("linux/arm/v7"));
    let options = PushOptions { platform: Some(choice), ..PushOptions::default() };
    let pushed = client().push(&other, &options, &to, &|_| {}).await.unwrap();
    assert_eq!(pushed.target.digest, arm.digest);

    let all = pull(PlatformChoice::All);
    client().pull(&reference, &all, &to, &|_| {}).await.unwrap();
    assert_eq!(to.manifests(&multi).unwrap().len(), 2);
    let none = pull(PlatformChoice::Exactly(platform("linux/s390x")));
    let error = client().pull(&reference, &none, &to, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("linux/amd64, linux/arm/v7"), "{error}");
}

#[tokio::test]
async fn skopeo_and_we_understand_each_other() {
    const TEST: &str = "skopeo_and_we_understand_each_other";
    let Some(registry) = Registry::start(TEST) else { return };
    let (_a, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[&noise(50_000, 3), b"top"]);
    let reference = name(&registry, "app:1");
    from.tag(&reference, &target).unwrap();
    client().push(&reference, &PushOptions::default(), &from, &|_| {}).await.unwrap();

    // Ours, read by skopeo: from the registry, from the store itself, and from a saved archive.
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name).display().to_string();
    let remote = format!("docker://{}/app:1", registry.host);
    let policy = "--insecure-policy";
    if !skopeo(
        TEST,
        &[policy, "copy", "--src-tls-verify=false", &remote, &format!("oci:{}:x", path("oci"))],
    ) {
        return;
    }
    let layout = format!("oci:{}:{}", from.root().display(), reference.canonical());
    skopeo(TEST, &[policy, "copy", &layout, &format!("dir:{}", path("dir"))]);
    let saved = SavedImage { target: target.clone(), references: vec![reference.clone()] };
    let file = std::fs::File::create(path("saved.tar")).unwrap();
    archive::save(&from, &[saved], &PlatformChoice::All, file).unwrap();
    let docker = format!("docker-archive:{}:{}", path("saved.tar"), reference.canonical());
    skopeo(TEST, &[policy, "copy", &docker, &format!("oci:{}:y", path("oci"))]);
    let oci = format!("oci-archive:{}:1", path("saved.tar"));
    skopeo(TEST, &[policy, "copy", &oci, &format!("dir:{}", path("dir2"))]);

    // Skopeo's, read by us: a layout, its archives of both kinds, and Docker's schema 2 from the registry.
    let foreign = Store::open(work.path().join("oci")).unwrap();
    let there = foreign.images().unwrap();
    let id = from.image_id(&target).unwrap();
    assert!(there.iter().any(|record| foreign.image_id(&record.target).unwrap() == id));
    let to_docker = format!("docker-archive:{}:app:2", path("docker.tar"));
    skopeo(TEST, &[policy, "copy", "--src-tls-verify=false", &remote, &to_docker]);
    skopeo(
        TEST,
        &[
            policy,
            "copy",
            "--src-tls-verify=false",
            &remote,
            &format!("oci-archive:{}:3", path("oci.tar")),
        ],
    );
    let (_b, to) = store();
    for file in ["docker.tar", "oci.tar"] {
        let loaded = archive::load(&to, std::fs::File::open(path(file)).unwrap()).unwrap();
        assert_eq!(loaded.len(), 1, "{file}");
    }
    assert_eq!(check(&to, "app:2", "linux/amd64").diff_ids.len(), 2);
    let schema2 = format!("docker://{}/schema2:1", registry.host);
    skopeo(
        TEST,
        &[
            policy,
            "copy",
            "-f",
            "v2s2",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &remote,
            &schema2,
        ],
    );
    let choice = PlatformChoice::Exactly(platform("linux/amd64"));
    let options = PullOptions { platform: choice, ..PullOptions::default() };
    let reference = name(&registry, "schema2:1");
    client().pull(&reference, &options, &to, &|_| {}).await.unwrap();
    check(&to, &reference.canonical(), "linux/amd64");
    assert!(to.collect_garbage(&[], Duration::ZERO).is_ok());
}

#[tokio::test]
async fn certificates_are_verified() {
    const TEST: &str = "certificates_are_verified";
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name);
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([path("key.pem"), "-out".into(), path("cert.pem")])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        return skip(TEST, "openssl is not installed");
    }
    let tls = serde_json::json!({ "certificate": path("cert.pem"), "key": path("key.pem") });
    let Some(registry) = Registry::start_with(TEST, &tls, &serde_json::Value::Null) else { return };
    let (_a, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[b"layer"]);
    let reference = name(&registry, "app:1");
    from.tag(&reference, &target).unwrap();
    let push = async |security, ca: &[&str]| {
        let ca = ca.iter().map(|name| path(name)).collect();
        let mut config = crate::support::config();
        let settings = HostConfig { security, ca, ..HostConfig::default() };
        config.hosts.insert(registry.host.clone(), settings);
        let client = Client::new(config);
        client.push(&reference, &PushOptions::default(), &from, &|_| {}).await
    };
    let error = push(Some(Security::Tls), &[]).await.unwrap_err();
    assert_eq!(error.kind(), brig_images::ErrorKind::Unreachable, "{error}");
    push(Some(Security::Tls), &["cert.pem"]).await.unwrap();
    // Loopback, by default: TLS is spoken where the registry does, its certificate is not looked at.
    push(None, &[]).await.unwrap();
    let error = push(Some(Security::PlainHttp), &[]).await.unwrap_err();
    assert_ne!(error.kind(), brig_images::ErrorKind::NotFound, "{error}");
}
