//! The engine from image to container, through brigd, the shim and the runtime, driven by the real docker command line
//! and by `brig`.

use support::engine::Engine;

#[test]
fn a_container_runs_and_its_exit_code_comes_through() {
    let Some(engine) = Engine::start("exit") else { return };
    engine.load_busybox();
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    assert_eq!(engine.brig(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(engine.brig(&["run", "--rm", "busybox", "sh", "-c", "exit 3"]).code, Some(3));
    let missing = engine.docker(&["run", "--rm", "busybox", "nosuch"]);
    assert_eq!(missing.code, Some(127), "{}", missing.stderr);
    assert!(missing.stderr.contains("executable file not found"), "{}", missing.stderr);
    assert_eq!(engine.brig(&["run", "--rm", "busybox", "nosuch"]).code, Some(127));
    assert_eq!(engine.docker(&["run", "--rm", "--pull", "never", "absent"]).code, Some(125));
    assert_eq!(engine.docker(&["ps", "-aq"]).success(), "");
}

#[test]
fn a_container_sees_itself_only() {
    let Some(engine) = Engine::start("isolation") else { return };
    engine.load_busybox();
    let inside = |script: &str| {
        engine
            .docker(&["run", "--rm", "--hostname", "box", "busybox", "sh", "-c", script])
            .success()
    };
    assert_eq!(inside("echo $$"), "1");
    assert_eq!(inside("hostname"), "box");
    assert!(inside("ls -d /proc/[0-9]* | wc -l").parse::<u32>().unwrap() <= 4);
    assert_eq!(inside("ls /sys/class/net | sort | tr '\n' ' '"), "eth0 lo");
    // docker's fourteen capabilities, and a seccomp filter.
    let status = inside("grep -E 'CapEff|CapInh|^Seccomp:' /proc/self/status");
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(
        status.contains("CapInh:\t0000000000000000") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    assert_eq!(
        engine.docker(&["run", "--rm", "--user", "me", "busybox", "id", "-u"]).success(),
        "1000"
    );
}

#[test]
fn limits_hold() {
    let Some(engine) = Engine::start("limits") else { return };
    engine.load_busybox();
    let run = ["run", "--name", "big", "--memory", "64m", "busybox", "tail", "/dev/zero"];
    assert_eq!(engine.docker(&run).code, Some(137));
    let state =
        engine.docker(&["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big"]);
    assert_eq!(state.success(), "true 137");
    let script = "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let bomb = engine.docker(&["run", "--rm", "--pids-limit", "20", "busybox", "sh", "-c", script]);
    assert!(bomb.code != Some(0) && !bomb.stdout.contains("all"), "{bomb:?}");
}

#[test]
fn a_published_port_answers_on_the_host() {
    let Some(engine) = Engine::start("port") else { return };
    engine.load_busybox();
    let run = [
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h",
        "/etc",
    ];
    let _ = engine.docker(&run).success();
    let fetch = "for i in $(seq 50); do curl -sf --max-time 2 http://127.0.0.1:8080/passwd && exit; sleep 0.1; done; exit 1";
    assert!(engine.on_host(&["sh", "-c", fetch]).success().contains("root:x:0:0"));
    assert!(engine.docker(&["ps"]).success().contains("0.0.0.0:8080->80/tcp"));
    let taken = engine.docker(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert_eq!(taken.code, Some(125));
    assert!(
        taken.stderr.contains("8080") && taken.stderr.contains("already allocated"),
        "{}",
        taken.stderr
    );
    assert_eq!(engine.brig(&["stop", "-t", "1", "web"]).success(), "web");
}

#[test]
fn containers_of_a_network_find_each_other_by_name_and_strangers_do_not() {
    let Some(engine) = Engine::start("names") else { return };
    engine.load_busybox();
    for network in ["ours", "theirs"] {
        let _ = engine.docker(&["network", "create", network]).success();
    }
    let _ = engine
        .docker(&["run", "-d", "--name", "db", "--network", "ours", "busybox", "sleep", "1000"])
        .success();
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = engine.docker(&["inspect", "-f", address, "db"]).success();
    let ping = |network: &str, target: &str| {
        engine
            .docker(&[
                "run",
                "--rm",
                "--network",
                network,
                "busybox",
                "ping",
                "-c",
                "1",
                "-W",
                "2",
                target,
            ])
            .code
    };
    assert_eq!(ping("ours", "db"), Some(0));
    assert_eq!(ping("theirs", "db"), Some(1));
    assert_eq!(ping("theirs", &address), Some(1));
    let _ = engine.docker(&["rm", "--force", "db"]).success();
    for network in ["ours", "theirs"] {
        assert_eq!(engine.docker(&["network", "rm", network]).success(), network);
    }
}

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
fn containers_outlive_a_brigd_that_is_killed() {
    let Some(mut engine) = Engine::start("crash") else { return };
    engine.load_busybox();
    let script = "i=0; while :; do echo line $i; i=$((i+1)); usleep 1000; done";
    let _ =
        engine.docker(&["run", "-d", "--name", "writer", "busybox", "sh", "-c", script]).success();
    let _ = engine
        .docker(&["run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 5"])
        .success();
    engine.crash_and_restart();
    assert_eq!(engine.docker(&["exec", "writer", "echo", "adopted"]).success(), "adopted");
    assert_eq!(engine.docker(&["wait", "short"]).success(), "5");
    let _ = engine.docker(&["kill", "writer"]).success();
    let log = engine.docker(&["logs", "writer"]).success();
    // The last line may have been cut by the kill.
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() > 10, "{log}");
    for (number, line) in lines.iter().enumerate().take(lines.len() - 1) {
        assert_eq!(*line, format!("line {number}"));
    }
}
