//! The programs in `examples/`, run as their first lines say, in namespaces of their own.
#![expect(clippy::unwrap_used, reason = "a test that fails stops")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use support::cgroups;
use support::engine::{Engine, Outcome, Registry, busybox, pack_busybox, program};

/// Runs an example on the machine that the engine has to itself.
fn run(engine: &Engine, name: &str, words: &[&str]) -> Outcome {
    let program = program(name);
    assert!(program.is_file(), "{} is not built: use cargo xtask test", program.display());
    let program = program.to_string_lossy();
    engine.on_host(&[&[&*program], words].concat())
}

/// A root filesystem of busybox.
fn make_rootfs(directory: &Path) {
    for name in ["bin", "proc", "tmp", "dev"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::copy(busybox().unwrap(), directory.join("bin/busybox")).unwrap();
    for name in ["sh", "id", "ls", "mkdir", "mount", "echo", "true"] {
        symlink("busybox", directory.join("bin").join(name)).unwrap();
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn embed_runtime_runs_a_bundle() {
    let Some(engine) = Engine::start("embed-runtime") else { return };
    let bundle: PathBuf = engine.path("bundle");
    make_rootfs(&bundle.join("rootfs"));
    let cgroup = format!("brig-test-embed-runtime-{}", std::process::id());
    // The first process ends when the other has: its own end would kill that.
    let wait = "echo init is $$; until [ -s /tmp/seen ]; do :; done; read other </tmp/seen; \
                while kill -0 $other 2>/dev/null; do :; done; exit 7";
    let config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["sh", "-c", wait],
        },
        "linux": {
            "cgroupsPath": format!("/{cgroup}/container"),
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let script = "echo another is not $(($$ - 1)); echo $$ >/tmp/seen";
    let outcome = run(&engine, "embed-runtime", &[&text(&bundle), "sh", "-c", script]);
    cgroups::remove(&cgroup);
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    for line in ["init is 1", "another is not", "executed: Code(0)", "ended: Code(7)"] {
        assert!(outcome.stdout.contains(line), "{line}: {outcome:?}");
    }
}

#[test]
fn sandbox_confines_a_command() {
    let Some(engine) = Engine::start("sandbox") else { return };
    let rootfs = engine.path("rootfs");
    make_rootfs(&rootfs);
    // The sandbox's user is none of the host's, so it has to be let through.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(rootfs.parent().unwrap(), open).unwrap();
    let script = "id -u; ls /proc/1/cwd >&2; mkdir /written; mount -t tmpfs tmpfs /tmp; exit 3";
    let outcome = run(&engine, "sandbox", &[&text(&rootfs), "sh", "-c", script]);
    assert_eq!((outcome.code, outcome.stdout.trim()), (Some(3), "1000"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert!(outcome.stderr.contains("mount: permission denied"), "{outcome:?}");
    // More memory than it may have.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let outcome = run(&engine, "sandbox", &[&text(&rootfs), "sh", "-c", script]);
    assert_eq!(outcome.code, Some(137), "{outcome:?}");
}

#[test]
fn unpack_layers_applies_archives() {
    let Some(engine) = Engine::start("unpack-layers") else { return };
    let layer = engine.path("layer.tar");
    let mut archive = tar::Builder::new(fs::File::create(&layer).unwrap());
    archive.append_path_with_name("/etc/hostname", "etc/hostname").unwrap();
    archive.finish().unwrap();
    let outcome = run(&engine, "unpack-layers", &[&text(&layer), &text(&layer)]);
    let output = outcome.success();
    for line in ["layer-1: ", "mount -t overlay", "/hello: from outside", "Added /hello"] {
        assert!(output.contains(line), "{line}: {output}");
    }
}

#[test]
fn two_namespaces_reach_each_other() {
    let Some(engine) = Engine::start("two-namespaces") else { return };
    let output = run(&engine, "two-namespaces", &[]).success();
    assert!(output.contains("client hears from"), "{output}");
    assert!(output.contains("the host hears from 127.0.0.1"), "{output}");
}

#[test]
fn pull_image_makes_a_layout() {
    let Some(engine) = Engine::start("pull-image") else { return };
    let Some(registry) = Registry::start(&engine, "pull_image_makes_a_layout") else { return };
    engine.load_busybox();
    let image = registry.image("busybox");
    let _ = engine.docker(&["tag", "busybox", &image]).success();
    let _ = engine.docker(&["push", &image]).success();
    let layout = engine.path("layout");
    let output = run(&engine, "pull-image", &[&image, &text(&layout)]).success();
    assert!(output.contains("is image sha256:"), "{output}");
    assert!(layout.join("index.json").is_file());
}

#[test]
fn engine_in_process_runs_an_image() {
    let Some(engine) = Engine::start("engine-in-process") else { return };
    let archive = engine.path("image.tar");
    pack_busybox(&archive);
    let links = || engine.on_host(&["ip", "-brief", "link"]).success();
    let rules = || engine.on_host(&["nft", "list", "ruleset"]).success();
    let before = (links(), rules());
    let script = "echo hello from $$; exit 4";
    let words = [&*text(&archive), "busybox", "sh", "-c", script];
    let outcome = run(&engine, "engine-in-process", &words);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stdout.contains("Loaded image: busybox:latest"), "{outcome:?}");
    assert!(outcome.stdout.contains("hello from 1"), "{outcome:?}");
    assert_eq!((links(), rules()), before, "it leaves nothing");
}
