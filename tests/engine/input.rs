//! Bad input: the error names the thing and the remedy, the exit code is docker's, and nothing is left behind.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

mod bundle;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

use support::engine::{Content, Engine, FalseRegistry, Outcome, Registry, Setup, eventually};

/// docker's exit code for a `run` that the engine refuses, and for any other command.
const REFUSED_RUN: i32 = 125;
const REFUSED: i32 = 1;

/// Each client's words on the way to its failure, which must have that code and say all of `words`.
fn refused(outcomes: [Outcome; 2], code: i32, words: &[&str]) {
    for (client, outcome) in ["docker", "brig"].into_iter().zip(outcomes) {
        assert_eq!(outcome.code, Some(code), "{client}: {outcome:?}");
        // What becomes of an exec comes on its streams, and docker's client prints it as output.
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
        assert!(missing.is_empty(), "{client} does not say {missing:?}: {said}");
    }
}

/// What the engine keeps of images: content, downloads under way, unpacked layers.
fn kept(engine: &Engine) -> BTreeSet<String> {
    let root = engine.path("root");
    let listed = ["content/blobs", "content/ingest", "content/leases", "storage/snapshots"]
        .map(|part| root.join(part).display().to_string());
    let find = [&["find"], &listed.each_ref().map(String::as_str)[..], &["-mindepth", "1"]];
    // `find` fails on what goes while it looks; what was found is found all the same.
    let found = engine.on_host(&find.concat()).stdout;
    // Directories that are always there, and the record of a snapshot, whose name says whether it is on disk yet.
    let other = ["/sha256", "/sha512", ".json"];
    let content = |path: &&str| !other.iter().any(|end| path.ends_with(end));
    found.lines().filter(content).map(str::to_owned).collect()
}

/// Removed layers are deleted in the background.
fn nothing_kept(engine: &Engine, before: &BTreeSet<String>) {
    let mut left = BTreeSet::new();
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the end of what was left", || {
            left = kept(engine);
            (left == *before).then_some(())
        });
    }));
    assert!(gone.is_ok(), "before: {before:#?}, left: {left:#?}");
}

#[test]
fn unknown_images_are_named() {
    let Some(engine) = Engine::start("unknown-image") else { return };
    let Some(registry) = Registry::start(&engine, "unknown-image") else { return };
    let before = kept(&engine);
    let name = registry.image("nosuch");
    let words = [&*name, "127.0.0.1:5000"];
    refused(engine.both(&["pull", &name]), REFUSED, &words);
    refused(engine.both(&["run", "--rm", &name]), REFUSED_RUN, &words);
    refused(engine.both(&["create", &name]), REFUSED, &words);
    refused(engine.both(&["rmi", "nosuch"]), REFUSED, &["No such image: nosuch"]);
    refused(engine.both(&["inspect", "nosuch"]), REFUSED, &["No such object: nosuch"]);
    let never = ["run", "--rm", "--pull", "never", "nosuch"];
    refused(engine.both(&never), REFUSED_RUN, &["No such image: nosuch"]);
    assert_eq!(engine.docker(&["ps", "-aq"]).success(), "");
    nothing_kept(&engine, &before);
}

#[test]
fn registries_that_are_not_there_are_named() {
    let Some(engine) = Engine::start("no-registry") else { return };
    let before = kept(&engine);
    let silent = "127.0.0.1:1/web";
    let words = ["127.0.0.1:1", "web", "nothing answers there", "Connection refused"];
    refused(engine.both(&["pull", silent]), REFUSED, &words);
    refused(engine.both(&["run", "--rm", silent]), REFUSED_RUN, &words);
    let unknown = "registry.invalid/web";
    let words = ["registry.invalid", "web", "its name is not known", "check the spelling"];
    refused(engine.both(&["pull", unknown]), REFUSED, &words);
    refused(engine.both(&["run", "--rm", unknown]), REFUSED_RUN, &words);
    // Something else than a registry, which is taken for one with TLS.
    let address = "192.0.2.1:443";
    let add = "ip link add other type veth peer name rehto && ip link set other up && ip addr add 192.0.2.1/24 dev other";
    let _ = engine.on_host(&["sh", "-c", add]).success();
    let plain = listen_tcp(&engine, address);
    // Ends when the listener is shut down below.
    let listener = plain.try_clone().unwrap();
    let answering = std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let name = format!("{address}/web");
    let words = [&*name, "insecure-registries"];
    refused(engine.both(&["pull", &name]), REFUSED, &words);
    rustix::net::shutdown(&plain, rustix::net::Shutdown::Both).unwrap();
    answering.join().unwrap();
    let _ = engine.on_host(&["ip", "link", "del", "other"]).success();
    assert_eq!(engine.docker(&["ps", "-aq"]).success(), "");
    nothing_kept(&engine, &before);
}

#[test]
fn content_that_is_not_what_was_asked_for_is_refused() {
    let Some(engine) = Engine::start("wrong-digest") else { return };
    let before = kept(&engine);
    let layers = [tar_of("one", 100_000), tar_of("two", 100_000)];
    let (content, manifest, digests) = Content::image(&layers);
    let asked = format!("sha256:{}", "5".repeat(64));
    let mut lying = content.clone();
    lying.0.insert(asked.clone(), content.0["latest"].clone());
    let registry = FalseRegistry::start(&engine, lying);
    let name = format!("{}@{asked}", registry.image("web"));
    let words = [&*name, &*manifest, "damaged or tampered with"];
    refused(engine.both(&["pull", &name]), REFUSED, &words);
    refused(engine.both(&["run", "--rm", &name]), REFUSED_RUN, &words);
    nothing_kept(&engine, &before);
    let mut damaged = content;
    damaged.0.get_mut(&digests[1]).unwrap()[50_000] ^= 1;
    let registry = FalseRegistry::start(&engine, damaged);
    let name = registry.image("web");
    let words = [&*name, &*digests[1], "damaged or tampered with"];
    refused(engine.both(&["pull", &name]), REFUSED, &words);
    refused(engine.both(&["run", "--rm", &name]), REFUSED_RUN, &words);
    assert_eq!(engine.docker(&["images", "-aq"]).success(), "");
    nothing_kept(&engine, &before);
}

/// A tar archive of one file of so many bytes, which no two calls fill alike.
fn tar_of(name: &str, size: usize) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    let bytes: Vec<u8> = name.bytes().cycle().take(size).collect();
    archive.append_data(&mut header, name, &bytes[..]).unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn a_disk_that_is_full_while_pulling_is_named_and_left_as_it_was() {
    // Too small for the download, and large enough for that but not for the unpacked files beside it.
    for (test, size_mib) in [("full-download", 12), ("full-unpack", 24)] {
        let setup = Setup { root_mib: Some(size_mib), ..Setup::default() };
        let Some(engine) = Engine::start_as(test, setup) else { return };
        let before = kept(&engine);
        let (content, ..) = Content::image(&[tar_of("one", 2 << 20), tar_of("two", 14 << 20)]);
        let registry = FalseRegistry::start(&engine, content);
        let name = registry.image("web");
        let root = engine.path("root").display().to_string();
        // Layers come side by side, so which file finds no room is chance; the error names it.
        let words = [&*name, &*root, "free space", "No space left on device"];
        refused(engine.both(&["pull", &name]), REFUSED, &words);
        refused(engine.both(&["run", "--rm", &name]), REFUSED_RUN, &words);
        assert_eq!(engine.docker(&["images", "-aq"]).success(), "", "{test}");
        nothing_kept(&engine, &before);
        let _ = engine.on_host(&["mount", "-o", "remount,size=100m", &root]).success();
        let _ = engine.brig(&["pull", &name]).success();
        assert_eq!(engine.docker(&["images", "-q"]).success().len(), 12, "{test}");
        let _ = engine.docker(&["rmi", &name]).success();
        nothing_kept(&engine, &before);
    }
}

#[test]
fn what_is_removed_gives_its_space_back() {
    let Some(engine) = Engine::start("space") else { return };
    let before = kept(&engine);
    engine.load_busybox();
    let with_image = kept(&engine);
    let run = ["run", "--name", "full", "busybox", "dd", "if=/dev/zero", "of=/fill", "count=1000"];
    let _ = engine.docker(&run).success();
    assert_ne!(kept(&engine), with_image);
    let _ = engine.docker(&["rm", "full"]).success();
    nothing_kept(&engine, &with_image);
    let _ = engine.docker(&["rmi", "busybox"]).success();
    nothing_kept(&engine, &before);
}

/// A socket of a program that is not ours, on the engine's host.
fn on_host<T: Send>(engine: &Engine, open: impl FnOnce() -> T + Send) -> T {
    let namespace = PathBuf::from(format!("/proc/{}/ns/net", engine.holder()));
    brig_network::netns::run_in(&namespace, || Ok(open())).unwrap()
}

fn listen_tcp(engine: &Engine, address: &str) -> TcpListener {
    on_host(engine, || TcpListener::bind(address).unwrap())
}

#[test]
fn whoever_has_a_port_or_a_name_is_named() {
    let Some(engine) = Engine::start("taken") else { return };
    engine.load_busybox();
    let sleep = ["busybox", "sleep", "1000"];
    let web = [&["run", "-d", "--name", "web", "-p", "8080:80"][..], &sleep].concat();
    let _ = engine.docker(&web).success();
    let links = engine.on_host(&["ip", "-o", "link"]).success();
    let rules = engine.on_host(&["nft", "list", "ruleset"]).success();
    let again = ["run", "--rm", "-p", "8080:80", "busybox", "true"];
    let words =
        ["0.0.0.0:8080", "already allocated", "container web has it", "publish another port"];
    refused(engine.both(&again), REFUSED_RUN, &words);
    let tcp = listen_tcp(&engine, "0.0.0.0:0");
    let udp = on_host(&engine, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let held = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
    for (port, protocol) in held.into_iter().zip(["tcp", "udp"]) {
        let publish = format!("{port}:80/{protocol}");
        let run = ["run", "--rm", "-p", &publish, "busybox", "true"];
        let words =
            [&*format!("0.0.0.0:{port}"), "a program on this host has it", "publish another"];
        refused(engine.both(&run), REFUSED_RUN, &words);
    }
    drop((tcp, udp));
    let named = ["--name", "web", "busybox", "true"];
    let words = ["\"/web\" is already in use", "remove (or rename)"];
    refused(engine.both(&[&["run"], &named[..]].concat()), REFUSED_RUN, &words);
    refused(engine.both(&[&["create"], &named[..]].concat()), REFUSED, &words);
    let _ = engine.docker(&["create", "--name", "other", "busybox"]).success();
    refused(engine.both(&["rename", "other", "web"]), REFUSED, &words);
    let network = ["network", "create", "ours"];
    let _ = engine.docker(&network).success();
    refused(engine.both(&network), REFUSED, &["ours", "already exists"]);
    let _ = engine.docker(&["network", "rm", "ours"]).success();
    assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).success(), "other\nweb");
    assert_eq!(engine.on_host(&["ip", "-o", "link"]).success(), links);
    assert_eq!(engine.on_host(&["nft", "list", "ruleset"]).success(), rules);
}

#[test]
fn requests_that_cannot_be_met_say_so_with_dockers_codes() {
    let Some(engine) = Engine::start("requests") else { return };
    engine.load_busybox();
    let _ = engine.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).success();
    let run = |words: &[&'static str]| {
        engine.both(&[&["run", "--rm"], words, &["busybox", "true"]].concat())
    };
    for (words, told) in [
        // Not taken for a missing image, which would be pulled.
        (&["--network", "nosuch"][..], &["network nosuch not found"][..]),
        (&["--network", "container:nosuch"], &["No such container: nosuch"]),
        (&["--volumes-from", "nosuch"], &["No such container: nosuch"]),
        (&["--mount", "type=bind,src=/nosuch,dst=/x"], &["/nosuch", "does not exist"]),
        (&["--memory", "1k"], &["memory", "6MB"]),
        (&["--user", "nosuch"], &["nosuch"]),
        (&["-p", "99999:80"], &["99999"]),
        (&["--name", "no/slash"], &["no/slash", "[a-zA-Z0-9]"]),
    ] {
        for (client, outcome) in ["docker", "brig"].into_iter().zip(run(words)) {
            let said = told.iter().all(|word| outcome.stderr.contains(word));
            assert!(said, "{client} {words:?}: {outcome:?}");
            assert_eq!(outcome.code, Some(REFUSED_RUN), "{client} {words:?}: {outcome:?}");
            assert!(!outcome.stderr.contains("Unable to find image"), "{outcome:?}");
        }
    }
    for (command, code, told) in [
        ("nosuch", 127, "\"nosuch\": executable file not found in $PATH"),
        ("/nosuch", 127, "\"/nosuch\""),
        ("/etc", 126, "\"/etc\": permission denied"),
    ] {
        refused(engine.both(&["run", "--rm", "busybox", command]), code, &[told]);
        refused(engine.both(&["exec", "web", command]), code, &[told]);
    }
    refused(engine.both(&["exec", "nosuch", "true"]), REFUSED, &["No such container: nosuch"]);
    for command in ["stop", "start", "rm", "logs", "wait", "kill", "pause", "top"] {
        refused(engine.both(&[command, "nosuch"]), REFUSED, &["No such container: nosuch"]);
    }
    refused(engine.both(&["rm", "web"]), REFUSED, &["web", "stop the container"]);
    refused(engine.both(&["rmi", "busybox"]), REFUSED, &["busybox", "container"]);
    refused(engine.both(&["volume", "rm", "nosuch"]), REFUSED, &["nosuch", "no such volume"]);
    refused(engine.both(&["network", "rm", "nosuch"]), REFUSED, &["network nosuch not found"]);
    assert_eq!(engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).success(), "web");
}
