//! Running: exit codes, isolation, `--init`, logs.

use support::engine::{Engine, eventually};

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
fn an_init_reaps_orphans() {
    let Some(engine) = Engine::start("init") else { return };
    engine.load_busybox();
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; exec sleep 1000";
    for name in ["with", "without"] {
        let init = format!("--init={}", name == "with");
        let run = ["run", "-d", "--name", name, &init, "busybox", "sh", "-c", script];
        let _ = engine.docker(&run).success();
    }
    let zombies = |name: &str| {
        let count = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        engine.docker(&["exec", name, "sh", "-c", count]).success()
    };
    // Whoever has no init keeps them, which shows that there were some.
    eventually("zombies without an init", || (zombies("without") == "5").then_some(()));
    eventually("no zombies with an init", || (zombies("with") == "0").then_some(()));
    let first = engine.docker(&["exec", "with", "cat", "/proc/1/comm"]).success();
    assert_eq!(first, "docker-init");
    // It passes signals on: the container ends at once, with the signal's code.
    let _ = engine.docker(&["kill", "-s", "TERM", "with"]).success();
    assert_eq!(engine.docker(&["wait", "with"]).success(), "143");
    let missing = engine.brig(&["run", "--rm", "--init", "busybox", "nosuch"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
}

#[test]
fn logs_show_what_was_asked_for() {
    let Some(engine) = Engine::start("logs") else { return };
    engine.load_busybox();
    let script = "echo one; echo two >&2; echo three";
    let run = [
        "run",
        "--name",
        "box",
        "--label",
        "tier=front end",
        "--label",
        "other=x",
        "-e",
        "MODE=fast",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "env=MODE",
        "--log-opt",
        "tag={{.Name}}",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let _ = engine.docker(&run).success();
    let attributes = "MODE=fast,tag=box,tier=front+end ";
    for logs in engine.both(&["logs", "--details", "box"]) {
        assert_eq!(logs.stdout, format!("{attributes}one\n{attributes}three\n"));
        assert_eq!(logs.stderr, format!("{attributes}two\n"));
    }
    for logs in engine.both(&["logs", "-t", "--details", "-n", "1", "box"]) {
        // The streams are two pipes, of which either may be read last.
        let shown = format!("{}{}", logs.stdout, logs.stderr);
        let (time, rest) = shown.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && rest.starts_with(attributes), "{logs:?}");
    }
}
