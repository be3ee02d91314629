//! info, version, events, system df.

use support::engine::Engine;

use super::refused;

#[test]
fn the_engine_tells_about_itself_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-system") else { return };
    engine.load_busybox();
    let _ = engine
        .docker(&["run", "-d", "--name", "box", "-v", "data:/data", "busybox", "sleep", "1000"])
        .success();
    let _ = engine.docker(&["run", "--name", "done", "busybox", "true"]).success();
    let info = engine.docker(&["info"]);
    assert!(
        info.stdout
            .contains(" Containers: 2\n  Running: 1\n  Paused: 0\n  Stopped: 1\n Images: 1\n"),
        "{info:?}"
    );
    assert!(!info.stderr.contains("ERROR"), "{info:?}");
    let template = "{{.OSType}} {{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.Images}} {{.NCPU}}";
    let processors = std::thread::available_parallelism().unwrap();
    assert_eq!(
        engine.docker(&["info", "-f", template]).success(),
        format!("linux 2 1 1 1 {processors}")
    );
    let template = "{{.CgroupDriver}} {{.CgroupVersion}} {{.LoggingDriver}} {{.DefaultRuntime}} {{.Swarm.LocalNodeState}}";
    let shown = engine.docker(&["info", "-f", template]).success();
    assert!(
        ["1", "2"]
            .map(|version| format!("cgroupfs {version} json-file brig inactive"))
            .contains(&shown),
        "{shown}"
    );
    let template = "{{.Server.Os}}/{{.Server.Arch}} {{.Server.APIVersion}}";
    let version = engine.docker(&["version", "-f", template]).success();
    assert!(version.starts_with("linux/amd64 1."), "{version}");
    assert!(engine.docker(&["version"]).success().contains("Server:"));

    let format = "{{.Type}}:{{.TotalCount}}:{{.Active}}";
    let usage = engine.docker(&["system", "df", "--format", format]).success();
    assert_eq!(usage, "Images:1:1\nContainers:2:1\nLocal Volumes:1:1\nBuild Cache:0:0");
    let usage = engine.docker(&["system", "df"]).success();
    let header: Vec<&str> = usage.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    let verbose = engine.docker(&["system", "df", "-v"]).success();
    for title in ["Images space usage:", "Containers space usage:", "Local Volumes space usage:"] {
        assert!(verbose.contains(title), "{verbose}");
    }
    let pruned = engine.docker(&["system", "prune", "-f"]).success();
    assert!(
        pruned.starts_with("Deleted Containers:\n") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
}

#[test]
fn events_tell_the_life_of_a_container() {
    let Some(engine) = Engine::start("cli-events") else { return };
    engine.load_busybox();
    let since = engine.on_host(&["date", "+%s.%N"]).success();
    let _ = engine.docker(&[
        "run", "--rm", "--name", "box", "--label", "tier=web", "busybox", "sh", "-c", "exit 3",
    ]);
    let _ = engine.docker(&["volume", "create", "data"]).success();
    let _ = engine.docker(&["volume", "rm", "data"]).success();
    let until = engine.on_host(&["date", "+%s.%N"]).success();
    let events = |words: &[&str]| {
        engine.docker(&[&["events", "--since", &since, "--until", &until], words].concat())
    };
    let shown = events(&[
        "--filter",
        "container=box",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ])
    .success();
    assert_eq!(
        shown.split_whitespace().collect::<Vec<_>>(),
        ["create", "attach", "start", "die", "destroy"]
    );
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.tier}} {{.From}}";
    let died = events(&["--filter", "event=die", "--format", format]).success();
    assert_eq!(died, "container die box 3 web busybox");
    let shown = events(&[
        "--filter",
        "type=volume",
        "--format",
        "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.driver}}",
    ])
    .success();
    assert_eq!(shown, "create data local\ndestroy data local");
    let shown =
        events(&["--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}}"])
            .success();
    assert_eq!(shown, "connect bridge\ndisconnect bridge");
    let json = events(&["--filter", "event=start", "--format", "json"]).success();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["status"], &json["Type"], &json["scope"]),
        (&"start".into(), &"container".into(), &"local".into())
    );
    let plain = events(&["--filter", "event=die"]).success();
    assert!(
        plain.contains(" container die ") && plain.contains("exitCode=3, image=busybox, name=box"),
        "{plain}"
    );
    refused(&events(&["--filter", "colour=red"]), 1, &["invalid filter 'colour'"]);
}
