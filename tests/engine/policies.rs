//! Restart policies and health checks, end to end.
//!
//! What happens is waited for; how long it takes is never judged. That pauses double and start over is tested where they
//! are computed.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use support::engine::{Engine, eventually};

fn number(engine: &Engine, container: &str, template: &str) -> u32 {
    engine.inspect(container, template).parse().unwrap()
}

fn restarts(engine: &Engine, container: &str) -> u32 {
    number(engine, container, "{{.RestartCount}}")
}

fn status(engine: &Engine, container: &str) -> String {
    engine.inspect(container, "{{.State.Status}}")
}

/// Starts a container in the background.
fn run(engine: &Engine, name: &str, flags: &[&str], script: &str) {
    let words = [&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", script]].concat();
    let _ = engine.docker(&words).success();
}

#[test]
fn policies_restart_what_they_say() {
    let Some(engine) = Engine::start("restart") else { return };
    engine.load_busybox();
    run(&engine, "no", &[], "exit 1");
    run(&engine, "well", &["--restart", "on-failure:5"], "exit 0");
    run(&engine, "twice", &["--restart", "on-failure:2"], "exit 3");
    // Fails until its third start.
    let third = "echo x >> /starts; [ $(wc -l < /starts) -ge 3 ] && sleep 1000; exit 4";
    run(&engine, "third", &["--restart", "on-failure"], third);
    run(&engine, "always", &["--restart", "always"], "exit 0");
    for (name, code) in [("no", "1"), ("well", "0"), ("twice", "3")] {
        assert_eq!(engine.docker(&["wait", name]).success(), code, "{name}");
        assert_eq!(status(&engine, name), "exited", "{name}");
    }
    assert_eq!(restarts(&engine, "no"), 0);
    assert_eq!(restarts(&engine, "well"), 0);
    assert_eq!(restarts(&engine, "twice"), 2);
    eventually("the third start", || {
        let starts = engine.docker(&["exec", "third", "wc", "-l", "/starts"]).stdout;
        starts.starts_with('3').then_some(())
    });
    assert_eq!((restarts(&engine, "third"), &*status(&engine, "third")), (2, "running"));
    eventually("three restarts", || (restarts(&engine, "always") >= 3).then_some(()));
    let policy =
        "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(engine.inspect("twice", policy), "on-failure:2");
    // The policy may change between two runs as well as in one.
    run(&engine, "changed", &["--restart", "always"], "exit 0");
    eventually("a restart", || (restarts(&engine, "changed") >= 1).then_some(()));
    let _ = engine.docker(&["update", "--restart", "no", "changed"]).success();
    eventually("the last end", || (status(&engine, "changed") == "exited").then_some(()));
    // A stop ends the restarting, between two runs as well as in one; a start by hand counts anew.
    let _ = engine.docker(&["stop", "always"]).success();
    assert_eq!(status(&engine, "always"), "exited");
    let _ = engine.docker(&["stop", "-t", "1", "third"]).success();
    assert_eq!(status(&engine, "third"), "exited");
    let _ = engine.docker(&["start", "third"]).success();
    assert_eq!(restarts(&engine, "third"), 0);
}

#[test]
fn policies_hold_over_a_restart_of_the_engine() {
    let Some(mut engine) = Engine::start("restart-engine") else { return };
    engine.load_busybox();
    let sleep = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    for (name, policy) in [
        ("stopped", "unless-stopped"),
        ("killed", "unless-stopped"),
        ("always", "always"),
        ("failing", "on-failure"),
    ] {
        run(&engine, name, &["--restart", policy], sleep);
    }
    for name in ["stopped", "always", "failing"] {
        let _ = engine.docker(&["stop", name]).success();
    }
    let pid = number(&engine, "killed", "{{.State.Pid}}");
    engine.crash();
    // It ends while nobody looks, and not by hand.
    let _ = engine.on_host(&["kill", "-KILL", &pid.to_string()]).success();
    engine.restart();
    for name in ["killed", "always"] {
        let running = || (status(&engine, name) == "running").then_some(());
        eventually(&format!("{name} to run again"), running);
    }
    for name in ["stopped", "failing"] {
        assert_eq!(status(&engine, name), "exited", "{name}");
    }
    engine.shut_down();
    engine.restart();
    assert_eq!(status(&engine, "stopped"), "exited");
    assert_eq!(status(&engine, "killed"), "running");
}

const HEALTH: [&str; 6] =
    ["--health-interval", "100ms", "--health-timeout", "5s", "--health-retries", "2"];

fn health(engine: &Engine, container: &str) -> String {
    engine.inspect(container, "{{.State.Health.Status}}")
}

fn becomes(engine: &Engine, container: &str, wanted: &str) {
    eventually(wanted, || (health(engine, container) == wanted).then_some(()));
}

#[test]
fn health_is_told_as_it_changes() {
    let Some(engine) = Engine::start("health") else { return };
    engine.load_busybox();
    let check = ["--health-cmd", "echo looked; test -e /well"];
    run(&engine, "web", &[&HEALTH[..], &check].concat(), "sleep 1000");
    becomes(&engine, "web", "unhealthy");
    let log = engine.inspect(
        "web",
        "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}",
    );
    assert_eq!(log.trim(), "1 looked");
    assert!(number(&engine, "web", "{{.State.Health.FailingStreak}}") >= 2);
    assert!(engine.docker(&["ps"]).success().contains("(unhealthy)"));
    let filter = ["ps", "-q", "--filter", "health=unhealthy"];
    for listed in engine.both(&filter) {
        assert_eq!(listed.success().len(), 12);
    }
    let _ = engine.docker(&["exec", "web", "touch", "/well"]).success();
    becomes(&engine, "web", "healthy");
    assert_eq!(number(&engine, "web", "{{.State.Health.FailingStreak}}"), 0);
    assert!(engine.brig(&["ps"]).success().contains("(healthy)"));
    // In the start period failures do not count, and a success ends it.
    let slow = ["--health-start-period", "1h", "--health-start-interval", "100ms"];
    run(&engine, "slow", &[&HEALTH[..], &slow, &check].concat(), "sleep 1000");
    let probed = "{{len .State.Health.Log}}";
    eventually("several failures", || (number(&engine, "slow", probed) >= 4).then_some(()));
    assert_eq!(health(&engine, "slow"), "starting");
    let _ = engine.docker(&["exec", "slow", "touch", "/well"]).success();
    becomes(&engine, "slow", "healthy");
    let filters = ["--filter", "container=web", "--filter", "event=health_status"];
    let events = engine.events(&[&filters[..], &["--format", "{{.Action}}"]].concat());
    assert_eq!(events, "health_status: unhealthy\nhealth_status: healthy");
    // An image's or a flag's check can be turned off.
    run(&engine, "none", &["--no-healthcheck"], "sleep 1000");
    assert_eq!(engine.inspect("none", "{{.State.Health}}"), "<nil>");
}

#[test]
fn a_check_that_hangs_leaves_no_process_behind() {
    let Some(engine) = Engine::start("health-hangs") else { return };
    engine.load_busybox();
    // In the background, in a pipe, in a shell of its own, and in a session of its own.
    let check = "sleep 777 & sleep 777 | sleep 777 & (sleep 777) & setsid sleep 777 & wait";
    let flags =
        ["--health-interval", "100ms", "--health-timeout", "300ms", "--health-retries", "1"];
    run(&engine, "hung", &[&flags[..], &["--health-cmd", check]].concat(), "sleep 1000");
    becomes(&engine, "hung", "unhealthy");
    let looks = "{{len .State.Health.Log}}";
    eventually("several checks", || (number(&engine, "hung", looks) >= 4).then_some(()));
    // At most one check is under way at a time: its shell and five sleeps.
    let top = engine.docker(&["exec", "hung", "ps"]).success();
    let left = top.lines().filter(|line| line.contains("sleep 777")).count();
    assert!(left <= 12, "{left} processes of checks are left:\n{top}");
}

#[test]
fn an_unhealthy_container_is_restarted_by_the_policy_that_is_for_that() {
    let Some(mut engine) = Engine::start("on-unhealthy") else { return };
    engine.load_busybox();
    let policy = |name: &str| {
        let template =
            "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}";
        engine.inspect(name, template)
    };
    let check = [&HEALTH[..], &["--health-cmd", "test -e /well"]].concat();
    // Ends well when it is asked to: that it is restarted is the health check's doing alone.
    let polite = "trap 'exit 0' TERM; echo x >> /starts; while :; do sleep 0.1; done";
    let flags = [&check[..], &["--restart", "on-unhealthy:2"]].concat();
    run(&engine, "polite", &flags, polite);
    assert_eq!(policy("polite"), "on-unhealthy:2");
    eventually("both tries", || (restarts(&engine, "polite") == 2).then_some(()));
    // Its tries are used up: it goes on, and its health is only told.
    becomes(&engine, "polite", "unhealthy");
    let streak = "{{.State.Health.FailingStreak}}";
    eventually("further checks", || (number(&engine, "polite", streak) >= 4).then_some(()));
    assert_eq!((restarts(&engine, "polite"), &*status(&engine, "polite")), (2, "running"));
    let starts = engine.docker(&["exec", "polite", "wc", "-l", "/starts"]).success();
    assert!(starts.starts_with('3'), "{starts}");
    let death = engine.brig(&["inspect", "-f", "{{.State.Death.SignalSender}}", "polite"]);
    assert_eq!(death.success().trim(), "engine: health check");
    // Does not listen to SIGTERM, and is well from its second start on.
    let second = "trap '' TERM; echo x >> /starts; [ $(wc -l < /starts) -ge 2 ] && touch /well; \
                  while :; do sleep 0.1; done";
    let flags = [&check[..], &["--stop-timeout", "1", "--restart", "on-unhealthy"]].concat();
    let words =
        [&["run", "--detach", "--name", "deaf"], &flags[..], &["busybox", "sh", "-c", second]];
    let _ = engine.brig(&words.concat()).success();
    becomes(&engine, "deaf", "healthy");
    assert_eq!(restarts(&engine, "deaf"), 1);
    let reason = engine.brig(&["inspect", "-f", "{{.State.Death.Reason}}", "deaf"]).success();
    assert_eq!(reason.trim(), "killed by its health check with SIGKILL");
    // It fails, which is a reason too.
    let flags = [&check[..], &["--restart", "on-unhealthy:1"]].concat();
    run(&engine, "failing", &flags, "exit 3");
    assert_eq!(engine.docker(&["wait", "failing"]).success(), "3");
    assert_eq!((restarts(&engine, "failing"), &*status(&engine, "failing")), (1, "exited"));
    // A stop ends it for good, and an engine that comes up does not start it.
    let _ = engine.docker(&["stop", "-t", "0", "polite"]).success();
    engine.crash();
    engine.restart();
    assert_eq!(status(&engine, "polite"), "exited");
    assert_eq!(status(&engine, "deaf"), "running");
    // Without a health check there is nothing to go by.
    let refused = engine.docker(&["create", "--restart", "on-unhealthy", "busybox", "true"]);
    assert!(refused.stderr.contains("needs a health check"), "{}", refused.stderr);
    let _ = engine.docker(&["update", "--restart", "on-failure:4", "deaf"]).success();
    assert_eq!(engine.inspect("deaf", "{{.HostConfig.RestartPolicy.Name}}"), "on-failure");
    let _ = engine.brig(&["update", "--restart", "on-unhealthy", "deaf"]).success();
    assert_eq!(engine.inspect("deaf", "{{.HostConfig.RestartPolicy.Name}}"), "on-unhealthy");
}
