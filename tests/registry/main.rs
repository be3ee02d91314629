//! `brig registry serve` with other people's clients: each pushes to it and pulls from it what another pushed.
#![expect(clippy::unwrap_used, reason = "a test may fail this way")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::engine::{Engine, program};
use support::served_registry;

/// A served registry, ended and removed when dropped.
struct Registry {
    address: String,
    process: Child,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Starts one; `None`, said aloud, where `brig` is not built.
    fn start(test: &str, options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(test, directory, Command::new(program("brig")), options)
    }

    fn start_in(
        test: &str,
        directory: tempfile::TempDir,
        command: Command,
        options: &[&str],
    ) -> Option<Self> {
        if !program("brig").is_file() {
            skip(test, "brig is not built: use cargo xtask test");
            return None;
        }
        let root = directory.path().join("registry");
        let (process, address) = served_registry::serve(command, &root, options);
        Some(Self { address, process, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

#[expect(clippy::print_stderr, reason = "the one place that says what was skipped")]
fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}

/// Runs a program that must succeed; `None`, said aloud, where it is not installed.
fn run(test: &str, directory: &Path, words: &[&str]) -> Option<String> {
    let logins = directory.join("auth.json");
    std::fs::write(&logins, "{}").unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120"])
        .args(words)
        .env("HOME", directory)
        .env("XDG_RUNTIME_DIR", directory)
        .env("REGISTRY_AUTH_FILE", logins)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.code() == Some(127) {
        skip(test, &format!("{} is not installed", words[0]));
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    Some(text(&output.stdout).trim().to_owned())
}

/// An OCI archive of one small image.
fn archive(directory: &Path) -> String {
    let archive = directory.join("image.tar");
    support::engine::pack_busybox(&archive);
    format!("docker-archive:{}", archive.display())
}

#[test]
fn skopeo_pushes_inspects_pulls_and_deletes() {
    const TEST: &str = "skopeo_pushes_inspects_pulls_and_deletes";
    let Some(registry) = Registry::start(TEST, &[]) else { return };
    let work = registry.directory.path();
    let source = archive(work);
    let skopeo =
        |words: &[&str]| run(TEST, work, &[&["skopeo", "--insecure-policy"], words].concat());
    let to = format!("docker://{}/team/app:1", registry.address);
    let insecure = "--dest-tls-verify=false";
    if skopeo(&["copy", insecure, &source, &to]).is_none() {
        return;
    }
    // Docker's own manifest form, and layers mounted from the repository beside it.
    let other = format!("docker://{}/team/other:v2s2", registry.address);
    let _ = skopeo(&["copy", "-f", "v2s2", "--src-tls-verify=false", insecure, &to, &other]);
    let shown = skopeo(&["inspect", "--tls-verify=false", &other]).unwrap();
    assert!(shown.contains("\"Digest\": \"sha256:"), "{shown}");
    let tags = format!("docker://{}/team/app", registry.address);
    assert!(skopeo(&["list-tags", "--tls-verify=false", &tags]).unwrap().contains("\"1\""));
    let copy = format!("dir:{}", registry.path("copy").display());
    let _ = skopeo(&["copy", "--src-tls-verify=false", &to, &copy]);
    assert!(registry.path("copy/manifest.json").is_file());
    let _ = skopeo(&["delete", "--tls-verify=false", &to]);
    let gone =
        Command::new("skopeo").args(["inspect", "--tls-verify=false", &to]).output().unwrap();
    assert!(!gone.status.success());
    let kept = skopeo(&["inspect", "--tls-verify=false", &other]);
    assert!(kept.is_some());
}

/// podman and buildah share their options for where things are kept.
fn storage(directory: &Path) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    ["--storage-driver", "vfs", "--root", &at("storage"), "--runroot", &at("run")]
        .map(str::to_owned)
        .into()
}

/// Pushes what it pulls: from the registry under one name, to it under another.
fn pulls_and_pushes(test: &str, client: &str) {
    let Some(registry) = Registry::start(test, &[]) else { return };
    if !rustix::process::geteuid().is_root() {
        return skip(test, "needs root");
    }
    let work = registry.directory.path();
    let policy = registry.path("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let source = archive(work);
    let first = format!("docker://{}/one/app:1", registry.address);
    let words = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", &source, &first];
    if run(test, work, &words).is_none() {
        return;
    }
    let client_words = |words: &[&str]| {
        let mut all = vec![client.to_owned()];
        all.extend(storage(work));
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        run(test, work, &all)
    };
    let image = format!("{}/one/app:1", registry.address);
    let signature = format!("--signature-policy={}", policy.display());
    if client_words(&["pull", &signature, "--tls-verify=false", &image]).is_none() {
        return;
    }
    let pushed = format!("docker://{}/two/app:2", registry.address);
    let push = ["push", &signature, "--tls-verify=false", &image, &pushed];
    client_words(&push).unwrap();
    let shown = run(test, work, &["skopeo", "inspect", "--tls-verify=false", &pushed]).unwrap();
    assert!(shown.contains("two/app"), "{shown}");
}

#[test]
fn podman_pulls_and_pushes() {
    pulls_and_pushes("podman_pulls_and_pushes", "podman");
}

#[test]
fn buildah_pulls_and_pushes() {
    pulls_and_pushes("buildah_pulls_and_pushes", "buildah");
}

#[test]
fn docker_and_brig_push_and_pull_through_the_engine() {
    const TEST: &str = "docker_and_brig_push";
    let Some(engine) = Engine::start(TEST) else { return };
    let directory = tempfile::tempdir().unwrap();
    // The engine's host is a network namespace of its own; the registry stands there, too.
    let mut command = Command::new("nsenter");
    command.arg(engine.network_namespace()).arg(program("brig"));
    let Some(registry) = Registry::start_in(TEST, directory, command, &[]) else { return };
    engine.load_busybox();
    let docker = format!("{}/by/docker:1", registry.address);
    let brig = format!("{}/by/brig:1", registry.address);
    for image in [&docker, &brig] {
        let _ = engine.docker(&["tag", "busybox", image]).success();
    }
    let pushed = engine.docker(&["push", &docker]).success();
    assert!(pushed.contains("digest: sha256:"), "{pushed}");
    let pushed = engine.brig(&["push", &brig]).success();
    assert!(pushed.contains("digest: sha256:"), "{pushed}");
    let _ = engine.docker(&["rmi", &docker, &brig, "busybox"]).success();
    // Each pulls what the other pushed, and it runs.
    let _ = engine.brig(&["pull", &docker]).success();
    assert_eq!(engine.brig(&["run", "--rm", &docker, "echo", "a"]).success(), "a");
    let _ = engine.brig(&["rmi", &docker]).success();
    let _ = engine.docker(&["pull", &brig]).success();
    assert_eq!(engine.docker(&["run", "--rm", &brig, "echo", "b"]).success(), "b");
    let _ = engine.docker(&["rmi", &brig]).success();
}

#[test]
fn a_login_over_tls_is_asked_for_and_taken() {
    const TEST: &str = "a_login_over_tls_is_asked_for_and_taken";
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).display().to_string();
    let (certificate, key) = (at("certs/ca.crt"), at("key.pem"));
    std::fs::create_dir(work.path().join("certs")).unwrap();
    let words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=registry",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    if run(TEST, work.path(), &words).is_none() {
        return;
    }
    // me:secret
    let users = "me:$2b$04$020cP/5jBbMTsDmOb2woTO3yBnA/Qf4bgnCh/TuHLPOX1XBQNvJ.G\n";
    std::fs::write(work.path().join("htpasswd"), users).unwrap();
    let options = ["--htpasswd", &at("htpasswd"), "--tls-cert", &certificate, "--tls-key", &key];
    let Some(registry) = Registry::start(TEST, &options) else { return };
    let source = archive(work.path());
    let to = format!("docker://{}/app:1", registry.address);
    let certificates = format!("--dest-cert-dir={}", at("certs"));
    let copy = ["skopeo", "--insecure-policy", "copy", &certificates];
    let refused = Command::new(copy[0]).args(&copy[1..]).args([&source, &to]).output();
    if refused.is_err() {
        return skip(TEST, "skopeo is not installed");
    }
    assert!(!refused.unwrap().status.success());
    let words = [&copy[..], &["--dest-creds=me:secret", &source, &to]].concat();
    assert!(run(TEST, work.path(), &words).is_some());
}
