//! Images made of containers: commit, and import of an exported file system.

use support::engine::Engine;

#[test]
fn a_committed_container_becomes_an_image_that_runs() {
    let Some(engine) = Engine::start("commit") else { return };
    engine.load_busybox();
    let make = ["run", "--name", "box", "-e", "B=2", "busybox", "sh", "-c", "echo data > /made"];
    let _ = engine.docker(&make).success();
    let id = engine
        .brig(&[
            "commit",
            "--author=me",
            "--message=because",
            "--change=CMD cat /made",
            "--change=ENV A=1 PATH=$PATH:/opt",
            "--change=EXPOSE 80",
            "--change=LABEL who=me",
            "box",
            "made:1",
        ])
        .success();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(engine.docker(&["run", "--rm", "made:1"]).success(), "data");
    let look =
        |format: &str| engine.docker(&["image", "inspect", "-f", format, "made:1"]).success();
    assert_eq!(look("{{.Id}}"), id);
    assert_eq!(look("{{.Author}} {{.Config.Labels.who}} {{len .RootFS.Layers}}"), "me me 2");
    assert_eq!(look("{{json .Config.ExposedPorts}}"), r#"{"80/tcp":{}}"#);
    let env = look("{{json .Config.Env}}");
    for variable in ["A=1", "B=2", "PATH=/bin:/opt"] {
        assert!(env.contains(&format!("{variable:?}")), "{env}");
    }
    let history = ["history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "made:1"];
    let history = engine.docker(&history).success();
    assert_eq!(history.lines().next(), Some("because|sh -c echo data > /made"));
    let refused = engine.brig(&["commit", "--change=RUN make", "box"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("RUN is not a valid change command"), "{}", refused.stderr);
}

#[test]
fn a_running_container_is_committed_by_docker_and_runs_on() {
    let Some(engine) = Engine::start("commit-running") else { return };
    engine.load_busybox();
    let run = "echo one > /tmp/file; rm /etc/group; sleep 1000";
    let _ = engine.docker(&["run", "-d", "--name", "up", "busybox", "sh", "-c", run]).success();
    let there = ["exec", "up", "test", "-e", "/tmp/file", "-a", "!", "-e", "/etc/group"];
    support::engine::eventually("the files", || {
        (engine.docker(&there).code == Some(0)).then_some(())
    });
    let _ = engine.docker(&["commit", "up", "up:1"]).success();
    let state = ["inspect", "-f", "{{.State.Status}}", "up"];
    assert_eq!(engine.docker(&state).success(), "running");
    let check = ["run", "--rm", "up:1", "sh", "-c", "cat /tmp/file; ls /etc"];
    let seen = engine.docker(&check).success();
    assert!(seen.starts_with("one") && !seen.contains("group"), "{seen}");
    // An image on top of that, of a container that changed nothing, without a name.
    let _ = engine.docker(&["create", "--name", "idle", "up:1", "cat", "/tmp/file"]).success();
    let id = engine.brig(&["commit", "--pause=false", "idle"]).success();
    assert_eq!(engine.docker(&["run", "--rm", &id]).success(), "one");
    let layers = ["image", "inspect", "-f", "{{len .RootFS.Layers}} {{len .RepoTags}}", &id];
    assert_eq!(engine.docker(&layers).success(), "2 0");
    let events = engine.events(&["--filter=event=commit", "--format={{.Type}}"]);
    assert_eq!(events, "container\ncontainer");
}

#[test]
fn an_exported_container_is_imported_and_runs() {
    let Some(engine) = Engine::start("import") else { return };
    engine.load_busybox();
    let make = ["run", "--name", "box", "busybox", "sh", "-c", "echo data > /made"];
    let _ = engine.docker(&make).success();
    let (tar, gzip) = (engine.path("box.tar"), engine.path("box.tar.gz"));
    let (tar, gzip) = (tar.to_string_lossy(), gzip.to_string_lossy());
    let _ = engine.brig(&["export", "-o", &tar, "box"]).success();
    let pack = format!("gzip -c {tar} > {gzip}");
    assert_eq!(engine.on_host(&["sh", "-c", &pack]).code, Some(0));
    let change = "--change=CMD [\"/bin/cat\", \"/made\"]";
    let id = engine.brig(&["import", "-m", "moved", change, &gzip, "moved:1"]).success();
    assert_eq!(engine.docker(&["run", "--rm", "moved:1"]).success(), "data");
    let by_docker = engine.docker(&["import", change, &tar, "moved:2"]).success();
    assert_eq!(engine.docker(&["run", "--rm", "moved:2"]).success(), "data");
    assert!(id.starts_with("sha256:") && by_docker.starts_with("sha256:"), "{id} {by_docker}");
    let history = ["history", "--format", "{{.Comment}}", "moved:1"];
    assert_eq!(engine.docker(&history).success(), "moved");
    let foreign = ["import", "--platform", "linux/arm64", &tar, "moved:arm"];
    let _ = engine.brig(&foreign).success();
    let platform = ["image", "inspect", "-f", "{{.Architecture}}", "moved:arm"];
    assert_eq!(engine.docker(&platform).success(), "arm64");
    // What is no archive leaves no image.
    std::fs::write(engine.path("junk"), vec![b'x'; 4096]).unwrap();
    let junk = engine.path("junk");
    let refused = engine.brig(&["import", &junk.to_string_lossy(), "junk:1"]);
    assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    assert_ne!(engine.docker(&["image", "inspect", "junk:1"]).code, Some(0));
}
