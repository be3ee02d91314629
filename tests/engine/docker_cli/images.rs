//! Images: pull, push, tag, rmi, save, load, history.

use std::fs;

use rustix::process::Signal;
use support::engine::{Background, Engine, Registry, eventually};

use super::refused;

#[test]
fn a_pull_that_takes_long_keeps_nobody_waiting() {
    let Some(engine) = Engine::start("slow-pull") else { return };
    let Some(registry) = Registry::start(&engine, "slow-pull") else { return };
    engine.load_busybox();
    let name = registry.image("busybox");
    let _ = engine.docker(&["tag", "busybox", &name]).success();
    let _ = engine.docker(&["push", &name]).success();
    let _ = engine.docker(&["rmi", &name]).success();
    let _ = engine.docker(&["tag", "busybox", "other"]).success();
    registry.server.signal(Signal::STOP);
    let mut pull = Background::start(engine.docker_command(&["pull", &name]));
    eventually("the connection to the registry", || {
        let connections = engine.on_host(&["ss", "-tn", "state", "established"]).success();
        connections.contains(":5000").then_some(())
    });
    assert_eq!(engine.docker(&["rmi", "other"]).code, Some(0));
    assert!(engine.docker(&["images"]).success().contains("busybox"));
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    registry.server.signal(Signal::CONT);
    let (code, output) = pull.finish();
    assert_eq!(code, Some(0), "{output}");
    assert!(engine.docker(&["images", "-q", &name]).success().len() == 12);
}

#[test]
fn images_go_to_a_registry_and_come_back() {
    let Some(engine) = Engine::start("cli-pull") else { return };
    let Some(registry) = Registry::start(&engine, "cli-pull") else { return };
    engine.load_busybox();
    let name = registry.image("library/box");
    assert_eq!(engine.docker(&["tag", "busybox", &name]).success(), "");
    let push = engine.docker(&["push", &name]).success();
    assert!(
        push.starts_with(&format!(
            "Using default tag: latest\nThe push refers to repository [{name}]"
        )),
        "{push}"
    );
    let last = push.lines().last().unwrap();
    assert!(last.starts_with("latest: digest: sha256:") && last.contains(" size: "), "{push}");
    let digest = last.split(' ').nth(2).unwrap().to_owned();
    assert_eq!(engine.docker(&["push", "-q", &name]).success(), format!("{name}:latest"));
    refused(
        &engine.docker(&["push", &registry.image("absent")]),
        1,
        &["An image does not exist locally with the tag: "],
    );

    let removed = engine.docker(&["rmi", &name]).success();
    assert!(
        removed.contains(&format!("Untagged: {name}:latest")) && !removed.contains("Deleted: "),
        "{removed}"
    );
    let removed = engine.docker(&["rmi", "busybox"]).success();
    assert!(
        removed.starts_with("Untagged: busybox:latest") && removed.contains("Deleted: sha256:"),
        "{removed}"
    );
    assert_eq!(engine.docker(&["images", "-q"]).success(), "");

    let pull = engine.docker(&["pull", &name]).success();
    let lines: Vec<&str> = pull.lines().collect();
    assert_eq!(lines[0], "Using default tag: latest");
    assert_eq!(lines[1], "latest: Pulling from library/box");
    assert!(pull.contains(": Pull complete"), "{pull}");
    assert!(
        pull.ends_with(&format!(
            "Digest: {digest}\nStatus: Downloaded newer image for {name}:latest\n{name}:latest"
        )),
        "{pull}"
    );
    let again = engine.docker(&["pull", &name]).success();
    assert!(again.contains(&format!("Status: Image is up to date for {name}:latest")), "{again}");
    assert_eq!(engine.docker(&["pull", "-q", &name]).success(), format!("{name}:latest"));
    let by_digest = format!("{name}@{digest}");
    assert!(engine.docker(&["pull", &by_digest]).success().ends_with(&by_digest));
    assert_eq!(engine.docker(&["run", "--rm", &by_digest, "echo", "hi"]).success(), "hi");
    assert_eq!(
        engine.docker(&["inspect", "-f", "{{index .RepoDigests 0}}", &name]).success(),
        by_digest
    );
    let format = "{{.Repository}} {{.Tag}} {{.Digest}}";
    assert_eq!(
        engine.docker(&["images", "--digests", "--format", format]).success(),
        format!("{name} latest {digest}")
    );

    let absent = engine.docker(&["pull", &format!("{name}:absent")]);
    refused(&absent, 1, &["library/box:absent", "manifest unknown"]);
    let absent = engine.docker(&["run", "--rm", &format!("{name}:absent"), "true"]);
    refused(&absent, 125, &["Unable to find image", "manifest unknown"]);
    refused(&engine.docker(&["pull", "Box"]), 1, &["must be lowercase"]);
}

#[test]
fn images_are_listed_tagged_and_removed_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-images") else { return };
    engine.load_busybox();
    let list = engine.docker(&["images"]).success();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = list.lines().map(words).collect();
    assert_eq!(rows[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(rows[1][..2], ["busybox", "latest"]);
    let id = engine.docker(&["images", "-q", "--no-trunc"]).success();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(rows[1][2], id[7..19]);
    assert!(rows[1].last().unwrap().ends_with('B'), "{rows:?}");
    for (template, expected) in [
        ("{{.Id}} {{.RepoTags}}", format!("{id} [busybox:latest]")),
        (
            "{{.Os}} {{.Architecture}} {{.RootFS.Type}} {{len .RootFS.Layers}}",
            "linux amd64 layers 1".to_owned(),
        ),
        ("{{json .Config.Cmd}}", "[\"sh\"]".to_owned()),
    ] {
        assert_eq!(
            engine.docker(&["image", "inspect", "-f", template, "busybox"]).success(),
            expected
        );
    }
    refused(&engine.docker(&["image", "inspect", "absent"]), 1, &["No such image: absent"]);

    let _ = engine.docker(&["tag", "busybox", "mine/box:1.2"]).success();
    let _ = engine.docker(&["tag", &id[7..19], "mine/box:1.3"]).success();
    refused(&engine.docker(&["tag", "absent", "x"]), 1, &["No such image: absent"]);
    for (filter, count) in [
        ("reference=mine/*", 2),
        ("reference=*box:latest", 1),
        ("dangling=true", 0),
        ("before=busybox", 0),
    ] {
        let shown =
            engine.docker(&["images", "--filter", filter, "--format", "{{.Tag}}"]).success();
        assert_eq!(shown.lines().count(), count, "{filter}: {shown}");
    }
    assert_eq!(engine.docker(&["images", "-q", "mine/box:1.2"]).success(), id[7..19]);
    let history = engine
        .docker(&["history", "--no-trunc", "--format", "{{.ID}} {{.Size}}", "busybox"])
        .success();
    assert!(history.starts_with(&id), "{history}");
    let history = engine.docker(&["history", "busybox"]).success();
    assert_eq!(
        words(history.lines().next().unwrap()),
        ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    );

    assert_removal(&engine, &id);
}

fn assert_removal(engine: &Engine, id: &str) {
    let _ = engine.docker(&["create", "--name", "user", "mine/box:1.2", "true"]).success();
    let container = engine.inspect("user", "{{.Id}}");
    assert_eq!(engine.docker(&["rmi", "mine/box:1.3"]).success(), "Untagged: mine/box:1.3");
    refused(
        &engine.docker(&["rmi", id]),
        1,
        &["conflict: unable to delete", "image is referenced in multiple repositories"],
    );
    let _ = engine.docker(&["rmi", "busybox"]).success();
    let used = engine.docker(&["rmi", "mine/box:1.2"]);
    let message =
        format!("container {} is using its referenced image {}", &container[..12], &id[7..19]);
    refused(
        &used,
        1,
        &[
            "conflict: unable to remove repository reference \"mine/box:1.2\" (must force)",
            &message,
        ],
    );
    refused(&engine.docker(&["rmi", "absent"]), 1, &["No such image: absent"]);
    assert_eq!(engine.docker(&["rmi", "-f", "absent"]).code, Some(0));
    let _ = engine.docker(&["rm", "user"]).success();
    let pruned = engine.docker(&["image", "prune", "-a", "-f"]).success();
    assert!(pruned.starts_with("Deleted Images:\nuntagged: mine/box:1.2\n"), "{pruned}");
    assert!(pruned.contains("\ndeleted: sha256:"), "{pruned}");
    assert!(pruned.contains("Total reclaimed space: "), "{pruned}");
}

#[test]
fn images_are_saved_and_loaded() {
    let Some(engine) = Engine::start("cli-save") else { return };
    engine.load_busybox();
    let _ = engine.docker(&["tag", "busybox", "mine/box:1"]).success();
    let id = engine.docker(&["images", "-q", "--no-trunc", "busybox"]).success();
    let file = engine.path("saved.tar").to_string_lossy().into_owned();
    assert_eq!(engine.docker(&["save", "-o", &file, "busybox", "mine/box:1"]).success(), "");
    let _ = engine.docker(&["rmi", "busybox", "mine/box:1"]).success();
    let loaded = engine.docker(&["load", "-i", &file]).success();
    let mut lines: Vec<&str> = loaded.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: busybox:latest", "Loaded image: mine/box:1"]);
    assert_eq!(engine.docker(&["images", "-q", "--no-trunc", "busybox"]).success(), id);
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    // By identifier, without a name.
    assert_eq!(engine.docker(&["save", "-o", &file, &id]).success(), "");
    let _ = engine.docker(&["rmi", "busybox", "mine/box:1"]).success();
    let loaded = engine.docker(&["load", "-i", &file]).success();
    assert_eq!(loaded, format!("Loaded image ID: {id}"));
    let dangling = engine.docker(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]);
    assert_eq!(dangling.success(), id);
    refused(&engine.docker(&["save", "-o", &file, "absent"]), 1, &["No such image: absent"]);
    fs::write(&file, "this is no archive").unwrap();
    assert_eq!(engine.docker(&["load", "-i", &file]).code, Some(1));
}
