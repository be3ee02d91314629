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
