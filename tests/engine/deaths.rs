//! Why containers ended, as `brig inspect` and `brig ps -a` tell it; docker's own words stay as they are.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use serde_json::Value;
use support::engine::{Engine, eventually};

/// `State.Death`.
fn death(engine: &Engine, container: &str) -> Value {
    let text = engine.brig(&["inspect", "--format", "json", container]).success();
    let described: Value = serde_json::from_str(&text).unwrap();
    described["State"]["Death"].clone()
}

/// The line of a container in `brig ps -a`.
fn listed(engine: &Engine, container: &str) -> String {
    let table = engine.brig(&["ps", "--all"]).success();
    let line = table.lines().find(|line| line.split_whitespace().last() == Some(container));
    line.unwrap_or_else(|| panic!("{container} is not in\n{table}")).to_owned()
}

fn run(engine: &Engine, name: &str, flags: &[&str], script: &str) -> Option<i32> {
    let words = [&["run", "--name", name], flags, &["busybox", "sh", "-c", script]].concat();
    engine.docker(&words).code
}

fn names_of_phases(death: &Value) -> Vec<&str> {
    let phases = death["Phases"].as_array().unwrap();
    phases.iter().map(|phase| phase["Name"].as_str().unwrap()).collect()
}

#[test]
fn a_program_that_fails_leaves_its_last_lines() {
    let Some(engine) = Engine::start("death-own") else { return };
    engine.load_busybox();
    let script = "for i in $(seq 50); do echo line $i; done; echo 'no configuration' >&2; exit 3";
    assert_eq!(run(&engine, "own", &[], script), Some(3));
    let told = death(&engine, "own");
    assert_eq!((&told["ExitCode"], &told["OOMKilled"]), (&3.into(), &false.into()), "{told}");
    assert!(told["Signal"].is_null() && told["SignalSender"].is_null(), "{told}");
    let lines = told["LastLines"].as_array().unwrap();
    assert_eq!(lines.len(), 10, "{told}");
    // The streams are two pipes, of which either may be read last.
    assert!(lines.iter().any(|line| line["Text"] == "line 50" && line["Stream"] == "stdout"));
    let error = lines.iter().find(|line| line["Stream"] == "stderr").unwrap();
    assert_eq!(error["Text"], "no configuration");
    assert_eq!(names_of_phases(&told), ["created", "started", "exited", "recorded"]);
    assert!(told["Phases"].as_array().unwrap().iter().all(|phase| phase["Seconds"].is_f64()));
    assert!(
        listed(&engine, "own").contains(" ago: no configuration "),
        "{}",
        listed(&engine, "own")
    );
    // Docker's words are docker's, for docker's command line and for scripts.
    for listed in engine.both(&["ps", "-a", "--format", "{{.Status}}"]) {
        let status = listed.success();
        assert!(status.starts_with("Exited (3) ") && status.ends_with(" ago"), "{status}");
    }
    // No log, no lines; an end that is well has no reason; one that runs again keeps the record of its last death.
    assert_eq!(run(&engine, "silent", &["--log-driver", "none"], "echo secret; exit 4"), Some(4));
    assert_eq!(death(&engine, "silent")["LastLines"], Value::Array(Vec::new()));
    assert_eq!(run(&engine, "well", &[], "echo fine"), Some(0));
    assert_eq!(death(&engine, "well")["Reason"], "");
    assert!(listed(&engine, "well").contains(" ago  "), "{}", listed(&engine, "well"));
    let again = "[ -e /once ] && exec sleep 1000; touch /once; echo once >&2; exit 5";
    let flags = ["--detach", "--restart", "on-failure"];
    assert_eq!(run(&engine, "again", &flags, again), Some(0));
    let state = "{{.State.Status}} {{.RestartCount}}";
    eventually("its second run", || (engine.inspect("again", state) == "running 1").then_some(()));
    assert_eq!(death(&engine, "again")["Reason"], "once");
    assert!(!listed(&engine, "again").contains(": once"), "{}", listed(&engine, "again"));
}

#[test]
fn memory_that_ran_out_is_told_with_who_took_it() {
    let Some(engine) = Engine::start("death-memory") else { return };
    engine.load_busybox();
    let words = ["run", "--name", "big", "--memory", "32m", "busybox", "tail", "/dev/zero"];
    assert_eq!(engine.docker(&words).code, Some(137));
    let told = death(&engine, "big");
    assert_eq!((&told["OOMKilled"], &told["Signal"]), (&true.into(), &"SIGKILL".into()), "{told}");
    assert_eq!(told["SignalSender"], "kernel: out of memory", "{told}");
    let memory = &told["Memory"];
    assert_eq!(memory["LimitBytes"], 32 << 20, "{told}");
    assert!(memory["PeakBytes"].as_u64().is_none_or(|peak| peak > 16 << 20), "{told}");
    assert!(listed(&engine, "big").contains(": out of memory ("), "{}", listed(&engine, "big"));
    if memory["Victim"].is_null() {
        eprintln!(
            "SKIPPED memory_that_ran_out_is_told_with_who_took_it: the kernel's log is not readable"
        );
        return;
    }
    assert_eq!(memory["Victim"], "tail", "{told}");
    assert!(listed(&engine, "big").contains("(tail killed at 32MiB of 32MiB)"));
    // Not the first process, which then ends by itself.
    let script = "tail /dev/zero; exit 9";
    assert_eq!(run(&engine, "child", &["--memory", "32m"], script), Some(9));
    let told = death(&engine, "child");
    assert_eq!((&told["Memory"]["Victim"], &told["ExitCode"]), (&"tail".into(), &9.into()));
    assert!(told["Signal"].is_null() && told["SignalSender"].is_null(), "{told}");
}

#[test]
fn who_sent_the_signal_is_told() {
    let Some(engine) = Engine::start("death-signal") else { return };
    engine.load_busybox();
    let start = |name: &str, script: &str| {
        assert_eq!(run(&engine, name, &["--detach"], script), Some(0), "{name}");
    };
    let obey = "trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done";
    for name in ["killed", "stubborn", "outside"] {
        start(name, "exec sleep 1000");
    }
    start("obedient", obey);
    eventually("its trap", || {
        engine.docker(&["logs", "obedient"]).stdout.contains("ready").then_some(())
    });
    let _ = engine.docker(&["kill", "killed"]).success();
    // Answered when its end is written down, so that nothing that follows meets a container that runs.
    assert_eq!(engine.inspect("killed", "{{.State.Status}}"), "exited");
    let _ = engine.docker(&["stop", "-t", "0", "stubborn"]).success();
    let _ = engine.brig(&["stop", "obedient"]).success();
    let pid = engine.inspect("outside", "{{.State.Pid}}");
    let _ = engine.on_host(&["kill", "-KILL", &pid]).success();
    let _ = engine.docker(&["wait", "outside"]).success();
    let rows = [
        ("killed", "SIGKILL", "engine: kill", "killed by hand with SIGKILL"),
        ("stubborn", "SIGKILL", "engine: stop, after its grace period", "it did not stop in time"),
        ("obedient", "", "engine: stop", "stopped by SIGTERM"),
        ("outside", "SIGKILL", "", "which the engine did not send"),
    ];
    for (name, signal, sender, reason) in rows {
        let told = death(&engine, name);
        assert_eq!(told["Signal"].as_str().unwrap_or_default(), signal, "{name}: {told}");
        assert_eq!(told["SignalSender"].as_str().unwrap_or_default(), sender, "{name}: {told}");
        assert!(listed(&engine, name).contains(reason), "{}", listed(&engine, name));
    }
}

#[test]
fn a_killed_shim_and_a_program_that_is_not_there_are_told() {
    let Some(engine) = Engine::start("death-shim") else { return };
    engine.load_busybox();
    assert_eq!(run(&engine, "orphan", &["--detach"], "exec sleep 1000"), Some(0));
    let id = engine.inspect("orphan", "{{.Id}}");
    let file = engine.path(&format!("state/containers/{id}/shim.pid"));
    let shim = std::fs::read_to_string(file).unwrap();
    let _ = engine.on_host(&["kill", "-KILL", shim.trim()]).success();
    assert_eq!(engine.docker(&["wait", "orphan"]).stdout.trim(), "137");
    let told = death(&engine, "orphan");
    assert!(told["Error"].as_str().unwrap().contains("shim died"), "{told}");
    assert!(listed(&engine, "orphan").contains("137) "), "{}", listed(&engine, "orphan"));
    assert!(listed(&engine, "orphan").contains(": the container's shim died"));

    let words = ["run", "--name", "absent", "busybox", "nosuch"];
    assert_eq!(engine.docker(&words).code, Some(127));
    let told = death(&engine, "absent");
    assert_eq!(told["ExitCode"], 127, "{told}");
    assert!(told["Error"].as_str().unwrap().contains("executable file not found"), "{told}");
    let line = listed(&engine, "absent");
    assert!(line.contains("Created: not started: ") && line.contains("not found"), "{line}");
}

#[test]
fn an_end_that_nobody_looked_at_is_told_by_the_next_engine() {
    let Some(mut engine) = Engine::start("death-away") else { return };
    engine.load_busybox();
    let script = "until [ -e /go ]; do sleep 0.1; done; echo alone >&2; exit 6";
    assert_eq!(run(&engine, "alone", &["--detach"], script), Some(0));
    let pid = engine.inspect("alone", "{{.State.Pid}}");
    engine.crash();
    let touch = format!("/proc/{pid}/root/go");
    let _ = engine.on_host(&["touch", &touch]).success();
    let process = std::path::Path::new("/proc").join(pid);
    eventually("its end", || (!process.exists()).then_some(()));
    engine.restart();
    assert_eq!(engine.docker(&["wait", "alone"]).success(), "6");
    let told = death(&engine, "alone");
    assert_eq!((&told["Reason"], &told["ExitCode"]), (&"alone".into(), &6.into()), "{told}");
}
