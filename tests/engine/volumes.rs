//! Volumes, and copies in and out.

use support::engine::Engine;

#[test]
fn volumes_keep_what_containers_write_and_copies_go_both_ways() {
    let Some(engine) = Engine::start("volumes") else { return };
    engine.load_busybox();
    assert_eq!(engine.docker(&["volume", "create", "data"]).success(), "data");
    let write = ["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f"];
    let _ = engine.docker(&write).success();
    assert_eq!(
        engine.docker(&["run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/f"]).success(),
        "kept"
    );
    let _ = engine.docker(&["create", "--name", "box", "busybox"]).success();
    let (from, to) = (engine.path("from"), engine.path("to"));
    std::fs::write(&from, "copied").unwrap();
    let _ = engine.brig(&["cp", &from.to_string_lossy(), "box:/tmp/x"]).success();
    let _ = engine.docker(&["cp", "box:/tmp/x", &to.to_string_lossy()]).success();
    assert_eq!(std::fs::read_to_string(to).unwrap(), "copied");
    let _ = engine.docker(&["rm", "box"]).success();
    assert_eq!(engine.docker(&["volume", "rm", "data"]).success(), "data");
}

#[test]
fn a_container_gets_a_part_of_a_volume() {
    let Some(mut engine) = Engine::start("subpath") else { return };
    engine.load_busybox();
    let fill = "mkdir -p /d/a/b && echo deep > /d/a/b/f && ln -s / /d/out";
    let _ = engine.docker(&["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", fill]).success();
    let mount = |subpath: &str| format!("type=volume,src=data,dst=/m,volume-subpath={subpath}");
    let read = |engine: &Engine, subpath: &str| {
        engine.brig(&["run", "--rm", "--mount", &mount(subpath), "busybox", "cat", "/m/f"])
    };
    assert_eq!(read(&engine, "a/b").success(), "deep");
    for (subpath, words) in [("../x", "relative path"), ("/a", "relative path"), ("none", "none")] {
        let outcome = read(&engine, subpath);
        assert!(outcome.code != Some(0) && outcome.stderr.contains(words), "{outcome:?}");
    }
    // A link to the root leads to the volume's root.
    let list = ["run", "--rm", "--mount", &mount("out"), "busybox", "ls", "/m"];
    assert_eq!(engine.brig(&list).success(), "a\nout");
    let hold = ["run", "-d", "--name", "box", "--mount", &mount("a"), "busybox", "sleep", "1000"];
    let _ = engine.brig(&hold).success();
    engine.crash_and_restart();
    assert_eq!(engine.docker(&["exec", "box", "cat", "/m/b/f"]).success(), "deep");
    let _ = engine.docker(&["stop", "-t", "0", "box"]).success();
    // Stopped, too, a copy sees the part.
    assert!(engine.docker(&["cp", "box:/m/b/f", "-"]).success().contains("deep"));
    let _ = engine.docker(&["rm", "-f", "box"]).success();
    assert!(!engine.path("state/subpaths").join("box").exists());
    let left = std::fs::read_dir(engine.path("state/subpaths")).unwrap().count();
    assert_eq!(left, 0, "parts of volumes stay mounted");
    let kept = ["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/a/b/f"];
    assert_eq!(engine.docker(&kept).success(), "deep");
    let _ = engine.docker(&["volume", "rm", "data"]).success();
}

#[test]
fn volumes_go_out_and_come_in_as_archives() {
    let Some(engine) = Engine::start("volume-archive") else { return };
    engine.load_busybox();
    let fill = "echo one > /d/f && chmod 640 /d/f && chown 7:8 /d/f";
    let _ = engine.docker(&["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", fill]).success();
    for compression in ["none", "zstd"] {
        let archive = engine.path(compression).to_string_lossy().into_owned();
        let export = ["volume", "export", "--compression", compression, "-o", &archive, "data"];
        let _ = engine.brig(&export).success();
        let magic = std::fs::read(&archive).unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(magic, compression == "zstd");
        let _ = engine.brig(&["volume", "import", "-i", &archive, "copy"]).success();
        let look = [
            "run",
            "--rm",
            "-v",
            "copy:/d",
            "busybox",
            "sh",
            "-c",
            "cat /d/f; stat -c %a:%u:%g /d/f",
        ];
        assert_eq!(engine.docker(&look).success(), "one\n640:7:8");
        let _ = engine.brig(&["volume", "rm", "copy"]).success();
    }
    assert_ne!(engine.brig(&["volume", "export", "absent"]).code, Some(0));
    let _ = engine.brig(&["volume", "rm", "data"]).success();
}
