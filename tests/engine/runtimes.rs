//! Containers on other OCI runtimes than the one in the shim: Debian's runc, and our own by its command line.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up fails, and one that is skipped says so"
)]

use support::engine::{Engine, eventually, program};

/// An engine that knows runc by its name and our runtime by its configuration.
fn start(test: &str, settings: &str) -> Option<Engine> {
    let ours = std::path::absolute(program("brig-runtime")).unwrap();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let missing = if !ours.is_file() {
        Some("brig-runtime is not built: use cargo xtask test")
    } else if !std::env::split_paths(&search).any(|directory| directory.join("runc").is_file()) {
        Some("runc is not installed")
    } else {
        None
    };
    if let Some(reason) = missing {
        eprintln!("SKIPPED {test}: {reason}");
        return None;
    }
    // The arguments are told by the log that they ask for.
    let own = format!("[runtimes.own]\npath = {ours:?}\nruntime-args = [\"--debug\"]\n");
    Engine::start_with(test, &format!("{settings}{own}"))
}

#[test]
fn containers_run_on_other_runtimes_by_name_and_by_path() {
    let Some(engine) = start("runtimes", "") else { return };
    engine.load_busybox();
    let path = std::path::absolute(program("brig-runtime")).unwrap();
    for runtime in ["runc", "own", path.to_str().unwrap()] {
        let run = |words: &[&str]| {
            engine.docker(&[&["run", "--rm", "--runtime", runtime, "busybox"], words].concat())
        };
        assert_eq!(run(&["echo", "hi"]).success(), "hi", "{runtime}");
        assert_eq!(run(&["sh", "-c", "exit 3"]).code, Some(3), "{runtime}");
        let missing = run(&["nosuch"]);
        assert_eq!(missing.code, Some(127), "{runtime}: {}", missing.stderr);
        let options = ["--memory", "16m", "--name", "hungry", "--runtime", runtime, "busybox"];
        let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        let hungry = [&["run"], &options[..], &["sh", "-c", script]].concat();
        assert_eq!(engine.docker(&hungry).code, Some(137), "{runtime}");
        let killed = ["inspect", "--format", "{{.State.OOMKilled}}", "hungry"];
        assert_eq!(engine.docker(&killed).success(), "true", "{runtime}");
        let _ = engine.docker(&["rm", "hungry"]).success();
        live(&engine, runtime);
    }
    // brig speaks the same words.
    let run = ["run", "--rm", "--runtime", "runc", "busybox", "echo", "hi"];
    assert_eq!(engine.brig(&run).success(), "hi");
    let check = engine.brig(&["system", "check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
}

/// A container that stays: its streams, a terminal, its processes, its use, its changes, its files, its end.
fn live(engine: &Engine, runtime: &str) {
    let script = "echo out; echo error >&2; trap 'exit 9' TERM; while :; do sleep 0.1; done";
    let run = ["run", "-d", "--name", "live", "--runtime", runtime, "-v", "data:/data", "busybox"];
    let _ = engine.docker(&[&run[..], &["sh", "-c", script]].concat()).success();
    let shown = ["inspect", "--format", "{{.HostConfig.Runtime}} {{.State.Status}}", "live"];
    assert_eq!(engine.docker(&shown).success(), format!("{runtime} running"));
    eventually("both streams are logged", || {
        let logs = engine.docker(&["logs", "live"]);
        (logs.stdout == "out\n" && logs.stderr == "error\n").then_some(())
    });
    let exec = engine.docker(&["exec", "live", "sh", "-c", "hostname > /kept; echo in; exit 4"]);
    assert_eq!((exec.code, &*exec.stdout), (Some(4), "in\n"));
    let missing = engine.brig(&["exec", "live", "nosuch"]);
    assert_eq!(missing.code, Some(127), "{runtime}: {}", missing.stderr);
    assert!(engine.docker(&["top", "live"]).success().contains("while :"));
    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "live"];
    assert_ne!(engine.docker(&stats).success(), "0");
    let _ = engine.docker(&["update", "--memory", "64m", "--memory-swap", "64m", "live"]).success();
    let _ = engine.docker(&["pause", "live"]).success();
    assert_eq!(engine.docker(&shown).success(), format!("{runtime} paused"));
    let _ = engine.docker(&["unpause", "live"]).success();
    let _ = engine.docker(&["stop", "live"]).success();
    let code = ["inspect", "--format", "{{.State.ExitCode}}", "live"];
    assert_eq!(engine.docker(&code).success(), "9", "{runtime}");
    // What the container wrote to its root is there at the next start, and outside.
    let _ = engine.docker(&["start", "live"]).success();
    let kept = engine.docker(&["exec", "live", "cat", "/kept"]).success();
    assert_eq!(kept.len(), 12, "{kept}");
    let _ = engine.docker(&["cp", "live:/kept", "copy"]).success();
    let _ = engine.docker(&["rm", "-f", "live"]).success();
    let _ = engine.docker(&["volume", "rm", "data"]).success();
}

#[test]
fn the_engine_tells_its_runtimes_and_refuses_others() {
    let Some(engine) = start("known", "") else { return };
    engine.load_busybox();
    let told = engine.docker(&["info", "--format", "{{.DefaultRuntime}} {{json .Runtimes}}"]);
    let told = told.success();
    assert!(told.starts_with("brig "), "{told}");
    for each in ["\"brig\":", "\"own\":", "\"runc\":", "\"runtimeArgs\":[\"--debug\"]"] {
        assert!(told.contains(each), "{each} in {told}");
    }
    let unknown = engine.docker(&["run", "--rm", "--runtime", "kata", "busybox", "true"]);
    assert_eq!(unknown.code, Some(125));
    let refusal = "unknown or invalid runtime name: kata";
    assert!(unknown.stderr.contains(refusal), "{}", unknown.stderr);
    let _ = engine.docker(&["create", "--name", "ours", "busybox"]).success();
    let shown = ["inspect", "--format", "{{.HostConfig.Runtime}}", "ours"];
    assert_eq!(engine.docker(&shown).success(), "brig");
}

#[test]
fn a_default_runtime_and_a_crash_are_survived() {
    let Some(mut engine) = start("default", "default-runtime = \"runc\"\n") else { return };
    engine.load_busybox();
    let _ = engine.docker(&["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]).success();
    let shown = ["inspect", "--format", "{{.HostConfig.Runtime}} {{.State.Status}}", "stays"];
    assert_eq!(engine.docker(&shown).success(), "runc running");
    engine.crash_and_restart();
    assert_eq!(engine.docker(&shown).success(), "runc running");
    assert_eq!(engine.docker(&["exec", "stays", "echo", "in"]).success(), "in");
    let _ = engine.docker(&["rm", "-f", "stays"]).success();
    let mounts = engine.on_host(&["cat", "/proc/self/mountinfo"]).success();
    let bundle = engine.path("state/containers").display().to_string();
    assert!(!mounts.contains(&format!("{bundle}/")), "{mounts}");
}
