//! Volumes: create, ls, inspect, rm, prune.

use support::engine::Engine;

use super::{is_id, refused};

#[test]
fn volumes_are_made_listed_and_removed_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-volume") else { return };
    engine.load_busybox();
    assert_eq!(
        engine.docker(&["volume", "create", "--label", "tier=db", "data"]).success(),
        "data"
    );
    assert_eq!(engine.docker(&["volume", "create", "data"]).success(), "data");
    let unnamed = engine.docker(&["volume", "create"]).success();
    assert!(is_id(&unnamed), "{unnamed}");
    refused(
        &engine.docker(&["volume", "create", "a/b"]),
        1,
        &["includes invalid characters for a local volume name"],
    );
    let list = engine.docker(&["volume", "ls"]).success();
    let header: Vec<&str> = list.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["DRIVER", "VOLUME", "NAME"]);
    let shown = engine.docker(&[
        "volume",
        "ls",
        "--filter",
        "label=tier",
        "--format",
        "{{.Driver}} {{.Name}} {{.Scope}}",
    ]);
    assert_eq!(shown.success(), "local data local");
    let inspect =
        |template: &str| engine.docker(&["volume", "inspect", "-f", template, "data"]).success();
    assert_eq!(
        inspect("{{.Name}} {{.Driver}} {{.Scope}} {{index .Labels \"tier\"}}"),
        "data local local db"
    );
    let mountpoint = inspect("{{.Mountpoint}}");

    let run = ["run", "-d", "--name", "box", "-v", "data:/data", "busybox", "sleep", "1000"];
    let container = engine.docker(&run).success();
    let _ = engine.docker(&["exec", "box", "sh", "-c", "echo kept > /data/file"]).success();
    assert_eq!(engine.on_host(&["cat", &format!("{mountpoint}/file")]).success(), "kept");
    let used = engine.docker(&["volume", "rm", "data"]);
    refused(&used, 1, &[&format!("remove data: volume is in use - [{container}]")]);
    let dangling = engine.docker(&["volume", "ls", "-q", "--filter", "dangling=true"]).success();
    assert_eq!(dangling, unnamed);
    let _ = engine.docker(&["rm", "-f", "-v", "box"]).success();
    let read = ["run", "--rm", "-v", "data:/data:ro", "busybox", "cat", "/data/file"];
    assert_eq!(engine.docker(&read).success(), "kept");
    refused(&engine.docker(&["volume", "inspect", "absent"]), 1, &["get absent: no such volume"]);
    refused(&engine.docker(&["volume", "rm", "absent"]), 1, &["get absent: no such volume"]);
    assert_eq!(engine.docker(&["volume", "rm", "-f", "absent"]).success(), "absent");
    let pruned = engine.docker(&["volume", "prune", "-f"]).success();
    assert!(
        pruned.starts_with(&format!("Deleted Volumes:\n{unnamed}\n\nTotal reclaimed space: ")),
        "{pruned}"
    );
    assert_eq!(engine.docker(&["volume", "rm", "data"]).success(), "data");
}
