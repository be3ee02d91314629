//! Shims that are killed, and engines of other versions.

use serde_json::json;
use support::engine::{Engine, Setup};

use crate::lab::{Lab, VICTIM, is_alive};

#[test]
fn a_killed_shim_ends_its_container_and_says_so() {
    let Some(lab) = Lab::start("shim-killed", Setup::default()) else { return };
    lab.create("victim", &format!("echo last words >&2; {VICTIM}"), &json!({}));
    lab.start_victim("victim");
    let (shim, init) = (shim_of(&lab, "victim"), lab.pid("victim"));
    let logged = || lab.must("GET", "/containers/victim/logs?stderr=1", "").body;
    lab.until("its line in the log", || logged().contains("last words"));
    kill(shim);
    let code = lab.must("POST", "/containers/victim/wait", "").json()["StatusCode"].as_i64();
    assert_eq!(code, Some(137));
    let inspected = lab.inspect("victim").unwrap();
    assert_eq!(inspected["State"]["Status"], "exited", "{inspected}");
    let error = inspected["State"]["Error"].as_str().unwrap_or_default();
    assert!(error.contains("shim died"), "{error}");
    // The shim took its memory of them along; the log has them.
    let line = &inspected["State"]["Death"]["LastLines"][0];
    assert_eq!(
        (&line["Text"], &line["Stream"]),
        (&"last words".into(), &"stderr".into()),
        "{inspected}"
    );
    assert!(!is_alive(init), "its process went with it");
    lab.check_bystander("shim killed");
    lab.check_consistency("shim killed");
    // As good as new.
    lab.must("POST", "/containers/victim/start", "");
    lab.wait_until_ready("victim");
    lab.must("POST", "/containers/victim/stop", "");
    assert_eq!(lab.inspect("victim").unwrap()["State"]["ExitCode"], 7);
    assert_eq!(lab.inspect("victim").unwrap()["State"]["Error"], "");
    lab.check_reuse("shim killed", "victim");
}

#[test]
fn a_shim_killed_while_brigd_is_away_is_noticed_when_it_comes_back() {
    let Some(mut lab) = Lab::start("shim-away", Setup::default()) else { return };
    lab.create("victim", VICTIM, &json!({ "RestartPolicy": { "Name": "always" } }));
    lab.start_victim("victim");
    let (shim, init) = (shim_of(&lab, "victim"), lab.pid("victim"));
    lab.engine.crash();
    kill(shim);
    lab.engine.restart();
    // The policy starts it again.
    lab.until("a restart", || {
        lab.state("victim").as_deref() == Some("running") && lab.pid("victim") != init
    });
    lab.check_bystander("shim killed while away");
    lab.check_consistency("shim killed while away");
    lab.check_reuse("shim killed while away", "victim");
}

#[test]
fn pause_and_restart_counts_survive_a_crash_of_brigd() {
    let Some(mut lab) = Lab::start("adopt", Setup::default()) else { return };
    lab.create("victim", VICTIM, &json!({}));
    lab.must("POST", "/containers/victim/start", "");
    lab.must("POST", "/containers/victim/pause", "");
    lab.engine.crash_and_restart();
    assert_eq!(lab.state("victim").as_deref(), Some("paused"));
    lab.must("POST", "/containers/victim/unpause", "");
    lab.engine.crash_and_restart();
    assert_eq!(lab.state("victim").as_deref(), Some("running"));
    lab.check_reuse("paused and adopted", "victim");
    lab.check_consistency("paused and adopted");
}

#[test]
fn an_exit_while_brigd_is_away_is_known_when_it_comes_back() {
    let Some(mut lab) = Lab::start("exit-away", Setup::default()) else { return };
    lab.create("victim", VICTIM, &json!({}));
    lab.create("passing", VICTIM, &json!({ "AutoRemove": true }));
    for name in ["victim", "passing"] {
        lab.start_victim(name);
    }
    let inits = ["victim", "passing"].map(|name| lab.pid(name));
    lab.engine.crash();
    for init in inits {
        signal(init, rustix::process::Signal::TERM);
    }
    for init in inits {
        lab.until("the end of the process", || !is_alive(init));
    }
    lab.engine.restart();
    lab.until("the exit", || lab.state("victim").as_deref() == Some("exited"));
    let inspected = lab.inspect("victim").unwrap();
    assert_eq!(inspected["State"]["ExitCode"], 7, "{inspected}");
    lab.until("the automatic removal", || lab.inspect("passing").is_none());
    lab.check_consistency("ended while brigd was away");
    lab.check_reuse("ended while brigd was away", "victim");
}

#[test]
fn the_data_of_a_newer_engine_is_refused_and_left_alone() {
    let Some(mut lab) = Lab::start("newer", Setup::default()) else { return };
    lab.engine.crash();
    let format = lab.engine.path("root/format");
    let present = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, "1000\n").unwrap();
    let before = contents(&lab.engine);
    let mut refused = lab.engine.spawn_daemon();
    assert!(!refused.wait().unwrap().success());
    assert_eq!(before, contents(&lab.engine), "nothing was touched");
    let log = std::fs::read_to_string(lab.engine.path("brigd.log")).unwrap();
    assert!(log.contains("use the newer engine"), "{log}");
    std::fs::write(&format, present).unwrap();
    lab.engine.restart();
    lab.check_bystander("after a refused downgrade");
}

#[test]
fn a_newer_engine_s_shims_are_left_alone_and_an_older_one_s_are_adopted() {
    let Some(mut lab) = Lab::start("shim-version", Setup::default()) else { return };
    lab.create("victim", VICTIM, &json!({}));
    lab.start_victim("victim");
    let (init, id) = (lab.pid("victim"), lab.inspect("victim").unwrap()["Id"].clone());
    let bundle = lab.engine.path(&format!("state/containers/{}", id.as_str().unwrap()));
    let settings = bundle.join("shim.json");
    let present = std::fs::read_to_string(&settings).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&present).unwrap();
    lab.engine.crash();
    parsed["version"] = json!(1000);
    std::fs::write(&settings, parsed.to_string()).unwrap();
    let before = contents(&lab.engine);
    let mut refused = lab.engine.spawn_daemon();
    assert!(!refused.wait().unwrap().success());
    assert_eq!(before, contents(&lab.engine), "nothing was touched");
    assert!(is_alive(init));
    let log = std::fs::read_to_string(lab.engine.path("brigd.log")).unwrap();
    assert!(log.contains("a newer shim keeps it (version 1000"), "{log}");
    // As the shims of a release before versions wrote it.
    parsed.as_object_mut().unwrap().remove("version");
    std::fs::write(&settings, parsed.to_string()).unwrap();
    lab.engine.restart();
    assert_eq!(lab.state("victim").as_deref(), Some("running"));
    assert_eq!(lab.pid("victim"), init);
    lab.must("POST", "/containers/victim/stop", "");
    assert_eq!(lab.inspect("victim").unwrap()["State"]["ExitCode"], 7);
    lab.check_bystander("shims of other versions");
    lab.check_consistency("shims of other versions");
    lab.check_reuse("shims of other versions", "victim");
}

/// Sizes and times of all that the engine keeps.
fn contents(engine: &Engine) -> Vec<String> {
    let listed = engine.on_host(&[
        "find",
        &engine.path("root").display().to_string(),
        "-printf",
        "%p %s %T@ %C@\n",
    ]);
    let mut lines: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(crate) fn shim_of(lab: &Lab, name: &str) -> i64 {
    let id = lab.inspect(name).unwrap()["Id"].as_str().unwrap().to_owned();
    let file = lab.engine.path(&format!("state/containers/{id}/shim.pid"));
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn kill(pid: i64) {
    signal(pid, rustix::process::Signal::KILL);
}

fn signal(pid: i64, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
