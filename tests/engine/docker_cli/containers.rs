//! Containers: run, ps, inspect, exec, logs, stop, rm and what lies between.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;

use support::engine::{Background, Engine, eventually};

use super::{is_id, refused};

/// Starts a container that sleeps; its identifier.
fn sleeper(engine: &Engine, name: &str, options: &[&str]) -> String {
    let run = ["run", "-d", "--name", name];
    engine.docker(&[&run[..], options, &["busybox", "sleep", "1000"]].concat()).success()
}

#[test]
fn containers_are_listed_and_inspected_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-list") else { return };
    engine.load_busybox();
    let cid = engine.path("cid").to_string_lossy().into_owned();
    let options = ["-p", "8080:80", "--label", "tier=web", "-v", "data:/data", "--cidfile", &cid];
    let id = sleeper(&engine, "web", &options);
    assert!(is_id(&id), "{id}");
    assert_eq!(fs::read_to_string(&cid).unwrap(), id);
    let _ = engine.docker(&["run", "--name", "failed", "busybox", "sh", "-c", "exit 3"]);
    let _ = engine.docker(&["create", "--name", "fresh", "busybox", "true"]).success();

    assert_list(&engine, &id);
    assert_filters(&engine);
    assert_templates(&engine, &id);
    // Word by word what the daemon says, the fields for older clients too.
    let [docker, brig] = engine
        .both(&["inspect", "failed"])
        .map(|outcome| serde_json::from_str::<serde_json::Value>(&outcome.success()).unwrap());
    assert!(docker[0]["NetworkSettings"]["IPAddress"].is_string(), "{docker}");
    assert_eq!(brig, docker);
    let missing = engine.docker(&["inspect", "absent"]);
    assert_eq!(missing.stdout.trim(), "[]");
    refused(&missing, 1, &["o such object: absent"]);
    refused(&engine.docker(&["container", "inspect", "absent"]), 1, &["No such container: absent"]);
    let list = engine.docker(&["inspect", &id[..7], "failed"]).success();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list[0]["Name"], &list[1]["Name"]), (&"/web".into(), &"/failed".into()));
    let port = |words: &[&str]| engine.docker(&[&["port", "web"], words].concat());
    assert_eq!(port(&[]).success().lines().next(), Some("80/tcp -> 0.0.0.0:8080"));
    assert_eq!(port(&["80/tcp"]).success().lines().next(), Some("0.0.0.0:8080"));
    refused(&port(&["81"]), 1, &["o public port '81' published for web"]);
}

/// What `ps` shows of a container that runs, one that failed and one that was never started.
fn assert_list(engine: &Engine, id: &str) {
    let list = engine.docker(&["ps"]).success();
    let (header, row) = list.split_once('\n').unwrap();
    let columns = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let split = |line: &str| -> Vec<String> {
        line.split("   ")
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(split(header), columns);
    let row = split(row);
    assert_eq!(
        (row[0].as_str(), row[1].as_str(), row[2].as_str()),
        (&id[..12], "busybox", "\"sleep 1000\"")
    );
    assert!(row[3].ends_with("ago") && row[4].starts_with("Up "), "{row:?}");
    assert!(row[5].starts_with("0.0.0.0:8080->80/tcp") && row[6] == "web", "{row:?}");
    let format = "{{.ID}} {{.State}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}} {{.Label \"tier\"}} {{.Labels}}";
    let shown = engine.docker(&["ps", "--format", format]).success();
    assert_eq!(shown, format!("{} running bridge data 1 web tier=web", &id[..12]));
    let statuses = engine.docker(&["ps", "-a", "--format", "{{.Names}}:{{.Status}}"]).success();
    let statuses: Vec<&str> = statuses.lines().collect();
    assert_eq!(statuses[0], "fresh:Created");
    assert!(statuses[1].starts_with("failed:Exited (3) "), "{statuses:?}");
    assert!(statuses[2].starts_with("web:Up "), "{statuses:?}");

    refused(&engine.docker(&["ps", "--filter", "colour=red"]), 1, &["invalid filter 'colour'"]);
    assert_eq!(engine.docker(&["ps", "-lq", "--no-trunc"]).success().len(), 64);
    assert_eq!(engine.docker(&["ps", "-q", "-n", "2"]).success().lines().count(), 2);
    let size = engine.docker(&["ps", "-s", "--format", "{{.Size}}"]).success();
    assert!(size.contains("B (virtual "), "{size}");
}

fn assert_filters(engine: &Engine) {
    for (filters, names) in [
        (&["status=exited"][..], "failed"),
        (&["exited=3"], "failed"),
        (&["exited=4"], ""),
        (&["label=tier"], "web"),
        (&["label=tier=db"], ""),
        (&["name=e"], "failed web fresh"),
        (&["name=^/?web$"], "web"),
        (&["ancestor=busybox", "status=created"], "fresh"),
        (&["volume=data"], "web"),
        (&["network=bridge", "status=running"], "web"),
        (&["publish=8080"], "web"),
        (&["before=failed"], "web"),
        (&["since=failed"], "fresh"),
        (&["status=exited", "status=created"], "failed fresh"),
    ] {
        let mut words = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| words.extend(["--filter", filter]));
        let shown = engine.docker(&words).success();
        let sorted = |text: &str| {
            let mut names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&shown), sorted(names), "{filters:?}");
    }
}

fn assert_templates(engine: &Engine, id: &str) {
    for (template, expected) in [
        ("{{.Name}} {{.Path}} {{json .Args}}", "/web sleep [\"1000\"]"),
        ("{{.Id}}", id),
        (
            "{{.Config.Image}} {{json .Config.Cmd}} {{.Config.Hostname}}",
            &format!("busybox [\"sleep\",\"1000\"] {}", &id[..12]),
        ),
        (
            "{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}} {{.RestartCount}}",
            "running true false 0 0",
        ),
        ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
        (
            "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}",
            "volume data /data true",
        ),
        (
            "{{index .Config.Labels \"tier\"}} {{.HostConfig.NetworkMode}} {{.HostConfig.RestartPolicy.Name}}",
            "web bridge no",
        ),
        (
            "{{.Platform}} {{.HostConfig.LogConfig.Type}} {{.HostConfig.Privileged}} {{len .ExecIDs}}",
            "linux json-file false 0",
        ),
    ] {
        assert_eq!(engine.inspect("web", template), expected, "{template}");
    }
}

#[test]
fn a_container_goes_through_its_life_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-life") else { return };
    engine.load_busybox();
    let id = sleeper(&engine, "web", &[]);
    let taken = engine.docker(&["run", "--name", "web", "busybox", "true"]);
    let message = format!("The container name \"/web\" is already in use by container \"{id}\"");
    refused(
        &taken,
        125,
        &["Conflict. ", &message, "You have to remove (or rename) that container"],
    );
    assert_eq!(engine.docker(&["rename", "web", "site"]).success(), "");
    assert_eq!(engine.docker(&["ps", "--format", "{{.Names}}"]).success(), "site");
    let other = sleeper(&engine, "other", &["--stop-timeout", "0"]);
    refused(&engine.docker(&["rename", "other", "site"]), 1, &["\"/site\" is already in use", &id]);

    assert_pause(&engine);
    assert_processes(&engine, &id);
    assert_ends(&engine, &id);
    assert_removal(&engine, &other);
}

fn assert_pause(engine: &Engine) {
    assert_eq!(engine.docker(&["pause", "site"]).success(), "site");
    assert_eq!(engine.inspect("site", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    assert!(engine.docker(&["ps"]).success().contains("(Paused)"));
    refused(&engine.docker(&["pause", "site"]), 1, &["is already paused"]);
    refused(
        &engine.docker(&["exec", "site", "true"]),
        1,
        &["is paused, unpause the container before exec"],
    );
    assert_eq!(engine.docker(&["unpause", "site"]).success(), "site");
    refused(&engine.docker(&["unpause", "site"]), 1, &["is not paused"]);
}

fn assert_processes(engine: &Engine, id: &str) {
    let top = engine.docker(&["top", "site"]).success();
    let (header, row) = top.split_once('\n').unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(header), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert_eq!(words(row)[1], engine.inspect("site", "{{.State.Pid}}"));
    assert!(row.ends_with("sleep 1000"), "{row}");
    let top = engine.docker(&["top", "site", "-o", "pid,comm"]).success();
    assert_eq!(words(top.lines().next().unwrap()), ["PID", "COMMAND"]);
    let format = "{{.Name}} {{.ID}} {{.PIDs}} {{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.BlockIO}}";
    let stats = engine.docker(&["stats", "--no-stream", "--format", format, "site"]).success();
    let stats = words(&stats);
    assert_eq!(stats[..3], ["site", &id[..12], "1"]);
    assert!(stats[3].ends_with('%') && stats[4].ends_with('B') && stats[5] == "/", "{stats:?}");
    let header = engine.docker(&["stats", "--no-stream"]).success();
    assert!(header.starts_with("CONTAINER ID   NAME"), "{header}");
}

/// By kill and stop, and how it runs again.
fn assert_ends(engine: &Engine, id: &str) {
    refused(
        &engine.docker(&["rm", "site"]),
        1,
        &[
            "cannot remove container",
            "container is running: stop the container before removing or force remove",
        ],
    );
    refused(&engine.docker(&["kill", "-s", "NOSUCH", "site"]), 1, &["nvalid signal: NOSUCH"]);
    let mut waiting = Background::start(engine.docker_command(&["wait", "site", "other"]));
    assert_eq!(engine.docker(&["kill", "-s", "KILL", "site"]).success(), "site");
    assert_eq!(engine.docker(&["stop", "other"]).success(), "other");
    assert_eq!(waiting.finish(), (Some(0), "137\n137\n".to_owned()));
    refused(
        &engine.docker(&["kill", "site"]),
        1,
        &["cannot kill container: site", &format!("container {id} is not running")],
    );
    refused(
        &engine.docker(&["exec", "site", "true"]),
        1,
        &[&format!("container {id} is not running")],
    );
    assert_eq!(engine.docker(&["stop", "site"]).success(), "site");
    assert_eq!(engine.docker(&["start", "site", "other"]).success(), "site\nother");
    assert_eq!(engine.docker(&["start", "site"]).success(), "site");
    let pid = engine.inspect("site", "{{.State.Pid}}");
    assert_eq!(engine.docker(&["restart", "-t", "0", "site"]).success(), "site");
    assert_ne!(engine.inspect("site", "{{.State.Pid}}"), pid);
    assert_eq!(
        engine.docker(&["update", "--memory", "32m", "--memory-swap", "64m", "site"]).success(),
        "site"
    );
    assert_eq!(engine.inspect("site", "{{.HostConfig.Memory}}"), (32 << 20).to_string());
}

fn assert_removal(engine: &Engine, other: &str) {
    assert_eq!(engine.docker(&["rm", "-f", "site"]).success(), "site");
    refused(&engine.docker(&["rm", "site"]), 1, &["No such container: site"]);
    assert_eq!(engine.docker(&["rm", "-f", "site"]).code, Some(0));
    let both = engine.docker(&["stop", "absent", "other"]);
    refused(&both, 1, &["No such container: absent"]);
    assert_eq!(both.stdout.trim(), "other");
    let pruned = engine.docker(&["container", "prune", "-f"]).success();
    assert!(
        pruned.starts_with(&format!("Deleted Containers:\n{other}\n\nTotal reclaimed space: ")),
        "{pruned}"
    );
}

#[test]
fn exec_and_logs_give_scripts_what_they_read() {
    let Some(engine) = Engine::start("cli-exec") else { return };
    engine.load_busybox();
    let script = "echo out; echo err >&2; exec sleep 1000";
    let _ = engine
        .docker(&["run", "-d", "--name", "box", "-e", "A=1", "busybox", "sh", "-c", script])
        .success();
    let exec = |words: &[&str]| engine.docker(&[&["exec"], words].concat());
    assert_eq!(exec(&["box", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(exec(&["box", "sh", "-c", "kill -9 $$"]).code, Some(137));
    let split = exec(&["box", "sh", "-c", "echo one; echo two >&2"]);
    assert_eq!((split.stdout.as_str(), split.stderr.as_str()), ("one\n", "two\n"));
    let who = exec(&[
        "-u",
        "1000:5",
        "-w",
        "/tmp",
        "-e",
        "B=2",
        "box",
        "sh",
        "-c",
        "echo $(id -u):$(id -g) $PWD $A $B",
    ]);
    assert_eq!(who.success(), "1000:5 /tmp 1 2");
    // Docker writes what went wrong with a start to the output.
    let missing = exec(&["box", "nosuch"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert!(missing.stdout.contains("executable file not found"), "{missing:?}");
    assert_eq!(exec(&["box", "/etc/passwd"]).code, Some(126));
    refused(&exec(&["absent", "true"]), 1, &["No such container: absent"]);
    let nobody = exec(&["-u", "nobody-here", "box", "true"]);
    assert_eq!(nobody.code, Some(126), "{nobody:?}");
    assert!(nobody.stdout.contains("unable to find user nobody-here"), "{nobody:?}");
    assert_eq!(exec(&["-d", "box", "touch", "/tmp/made"]).success(), "");
    eventually("what a detached exec does", || {
        (exec(&["box", "ls", "/tmp/made"]).code == Some(0)).then_some(())
    });
    let mut cat = Background::start(engine.docker_command(&["exec", "-i", "box", "cat"]));
    cat.send("through\n");
    cat.close_input();
    assert_eq!(cat.finish(), (Some(0), "through\n".to_owned()));

    let logs = eventually("the log", || {
        let logs = engine.docker(&["logs", "box"]);
        (!logs.stdout.is_empty() && !logs.stderr.is_empty()).then_some(logs)
    });
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    let stamped = engine.docker(&["logs", "-t", "box"]).stdout;
    let (time, line) = stamped.trim().split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && line == "out", "{stamped}");
    assert_eq!(engine.docker(&["logs", "--since", "1h", "--tail", "all", "box"]).stdout, "out\n");
    assert_eq!(engine.docker(&["logs", "--until", "1h", "box"]).stdout, "");
    refused(&engine.docker(&["logs", "absent"]), 1, &["No such container: absent"]);
    let mut follower = Background::start(engine.docker_command(&["logs", "-f", "box"]));
    follower.expect("err\n");
    let _ = exec(&["box", "sh", "-c", "echo later > /proc/1/fd/1"]).success();
    follower.expect("later\n");
    let _ = engine.docker(&["kill", "box"]).success();
    assert_eq!(follower.finish().0, Some(0));
}
