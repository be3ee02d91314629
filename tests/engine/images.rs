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

/// As docker has them: no mount point of the engine's own, but that of a volume that was asked for.
#[test]
fn what_was_made_for_mounts_is_neither_shown_nor_committed() {
    let Some(engine) = Engine::start("mount-points") else { return };
    let layer = support::engine::busybox_layer();
    let archive = engine.path("bare.tar");
    // Without /etc, /dev and the like; busybox is all it has.
    let mut bare = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        if entry.path().unwrap().starts_with("bin") {
            let mut header = entry.header().clone();
            let path = entry.path().unwrap().into_owned();
            match entry.link_name().unwrap().map(std::borrow::Cow::into_owned) {
                Some(link) => bare.append_link(&mut header, path, link).unwrap(),
                None => bare.append_data(&mut header, path, entry).unwrap(),
            }
        }
    }
    support::engine::pack_image(&archive, "bare", &[bare.into_inner().unwrap()]);
    let _ = engine.docker(&["load", "-i", &archive.to_string_lossy()]).success();
    let _ = engine.docker(&["run", "--name", "idle", "bare", "true"]).success();
    assert_eq!(engine.docker(&["diff", "idle"]).success(), "");
    let run = "echo x > /file";
    let _ = engine.docker(&["run", "--name", "box", "-v", "/here", "bare", "sh", "-c", run]);
    for changes in engine.both(&["diff", "box"]) {
        assert_eq!(changes.success(), "A /file\nA /here");
    }
    let _ = engine.docker(&["commit", "box", "made"]).success();
    let _ = engine.docker(&["create", "--name", "look", "made"]).success();
    let tar = engine.path("made.tar");
    let _ = engine.docker(&["export", "-o", &tar.to_string_lossy(), "look"]).success();
    let listed = engine.on_host(&["tar", "-tf", &tar.to_string_lossy()]).success();
    let top: std::collections::BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split('/').find(|part| !part.is_empty() && *part != "."))
        .collect();
    assert_eq!(top.into_iter().collect::<Vec<_>>(), ["bin", "file", "here"]);
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

#[test]
fn layouts_go_out_to_skopeo_and_come_in_from_it() {
    let Some(engine) = Engine::start("layouts") else { return };
    if engine.on_host(&["sh", "-c", "command -v skopeo"]).code != Some(0) {
        eprintln!("SKIPPED layouts: skopeo is not installed");
        return;
    }
    engine.load_busybox();
    let id = engine.docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"]).success();
    let (out, back) = (engine.path("out"), engine.path("back"));
    let (out, back) = (out.to_string_lossy(), back.to_string_lossy());
    let save = ["save", "--format", "oci-dir", "-o", &out, "busybox"];
    let _ = engine.brig(&save).success();
    assert_ne!(engine.brig(&save).code, Some(0), "the directory is not empty any more");
    let copy = |from: &str, to: &str| {
        engine.on_host(&["skopeo", "--insecure-policy", "copy", from, to]).success()
    };
    let _ = copy(&format!("oci:{out}:latest"), &format!("oci:{back}:example.com/copied:2"));
    let _ = engine.docker(&["rmi", "busybox"]).success();
    let loaded = engine.brig(&["load", "-i", &back]).success();
    assert_eq!(loaded, "Loaded image: example.com/copied:2");
    let inspect = ["image", "inspect", "-f", "{{.Id}}", "example.com/copied:2"];
    assert_eq!(engine.docker(&inspect).success(), id);
    assert_eq!(engine.docker(&["run", "--rm", "example.com/copied:2", "echo", "a"]).success(), "a");
    let again = engine.brig(&["load", "-q", "-i", &out]).success();
    assert!(again.contains("busybox:latest"), "{again}");
    // As with archives, what does not hash to its name is refused, and nothing of it stays.
    let _ = engine.docker(&["rmi", "busybox", "example.com/copied:2"]).success();
    let damage = "for blob in \"$0\"/blobs/sha256/*; do echo >> $blob; done";
    let _ = engine.on_host(&["sh", "-c", damage, &out]).success();
    let refused = engine.brig(&["load", "-i", &out]);
    assert!(refused.code != Some(0) && refused.stderr.contains("hashes to"), "{refused:?}");
    let images = engine.docker(&["images", "-aq"]).success();
    assert_eq!(images, "");
    let plain = engine.brig(&["load", "-i", &engine.path("").to_string_lossy()]);
    assert!(plain.stderr.contains("no OCI image layout"), "{plain:?}");
}
