//! A kill at every named point (F1): brigd, the shim, or the child that runs the runtime dies there, or the step fails.
//!
//! Afterwards what was acknowledged is there, what was not is absent or can be tried again, the bystander never noticed,
//! an exit code is the process's own and told once, records and machine agree, and the name works again.

use serde_json::json;
use support::engine::Setup;

use crate::lab::{Lab, VICTIM};

/// The programs with points compiled in: `failpoints` beneath the ordinary ones.
pub(crate) fn programs() -> std::path::PathBuf {
    let ordinary = std::env::var_os("BRIG_TEST_PROGRAMS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"),
        std::path::PathBuf::from,
    );
    ordinary.join("failpoints")
}

fn lab(test: &str) -> Option<Lab> {
    Lab::start(test, Setup { programs: Some(programs()), ..Setup::default() })
}

/// Who dies, or how the step fails.
const KILL: &str = "kill";
const KILL_WITH_SHIM: &str = "kill-parent";

/// Points in brigd, the shim's starter and the shim, where only a kill is a question.
const OF_CREATE: &[&str] = &["create-intended", "snapshot-prepared", "create-recorded"];
const OF_START: &[&str] = &[
    "start-intended",
    "netns-made",
    "endpoints-recorded",
    "links-made",
    "bundle-written",
    "shim-bound",
    "shim-forked",
    "shim-started",
    "settings-written",
    "task-created",
    "task-started",
    "start-recorded",
    "start-announced",
];
/// Points in the runtime, which runs in a child of the shim.
const OF_RUNTIME: &[&str] = &[
    "state-written",
    "cgroup-made",
    "cloned",
    "mounted",
    "state-renamed",
    "start-connected",
    "start-released",
];
const OF_STOP: &[&str] = &[
    "stop-recorded",
    "stop-signalled",
    "exit-reaped",
    "exit-written",
    "exit-heard",
    "task-deleted",
    "network-released",
    "torn-down",
    "exit-recorded",
];
const OF_DELETE: &[&str] = &["delete-killed", "cgroup-removed"];
const OF_REMOVE: &[&str] = &["removal-recorded", "snapshot-removed", "row-deleted"];

/// Points after which an unacknowledged start is on disk, so that the container goes on running.
const START_IS_DURABLE: &[&str] = &["start-recorded", "start-announced"];

/// Armed, acted, checked: what every case has in common. Answers the call's status, 0 for none.
fn strike(
    lab: &mut Lab,
    (point, action): (&str, &str),
    (method, path, body): (&str, &str, &str),
) -> u16 {
    lab.arm(point, action);
    let answer = lab.try_call(method, path, body);
    let case = format!("{action} at {point} during {method} {path}: {answer:?}");
    if lab.disarm() {
        panic!("{case}: the point was not reached");
    }
    // Only a brigd that dies gives no answer; its socket closes before the kernel says that it is gone.
    lab.revive(answer.is_err());
    lab.check_bystander(&case);
    answer.map_or(0, |answer| answer.status)
}

fn settle(lab: &Lab, case: &str) {
    lab.check_consistency(case);
    lab.check_reuse(case, "victim");
}

#[test]
fn a_create_cut_off_anywhere_is_all_or_nothing() {
    let Some(mut lab) = lab("points-create") else { return };
    let body =
        Lab::creation(VICTIM, &json!({ "Mounts": [{ "Type": "volume", "Target": "/data" }] }));
    for point in OF_CREATE {
        for action in [KILL, "enospc", "eio"] {
            let call = ("POST", "/containers/create?name=victim", body.as_str());
            let status = strike(&mut lab, (point, action), call);
            let case = format!("{action} at {point}: status {status}");
            // `create-recorded` is past the point of no return for a kill, which nobody was told.
            let durable = *point == "create-recorded" && action == KILL;
            assert_eq!(lab.inspect("victim").is_some(), durable, "{case}");
            assert!(action == KILL || status >= 500, "{case}");
            settle(&lab, &case);
            let volumes = lab.must("GET", "/volumes", "").json();
            if !durable {
                assert_eq!(
                    volumes["Volumes"].as_array().map_or(0, Vec::len),
                    0,
                    "{case}: {volumes}"
                );
            }
            lab.must("POST", "/volumes/prune", "");
        }
    }
    lab.swept(OF_CREATE.len() * 3, "kills and errors at points of create");
}

#[test]
fn a_start_cut_off_anywhere_runs_or_can_be_tried_again() {
    let Some(mut lab) = lab("points-start") else { return };
    let mut cases: Vec<(&str, &str)> = OF_START.iter().map(|point| (*point, KILL)).collect();
    for point in OF_RUNTIME {
        cases.extend([(*point, KILL), (*point, KILL_WITH_SHIM), (*point, "enospc")]);
    }
    cases.extend(
        ["netns-made", "links-made", "bundle-written", "task-created"].map(|it| (it, "eio")),
    );
    for case @ (point, action) in &cases {
        lab.create("victim", VICTIM, &json!({}));
        let status = strike(&mut lab, *case, ("POST", "/containers/victim/start", ""));
        let case = format!("{action} at {point}: status {status}");
        let expected = START_IS_DURABLE.contains(point);
        assert!(!(200..400).contains(&status), "{case}");
        let state = lab.state("victim").unwrap();
        assert_eq!(state == "running", expected, "{case}: {state}");
        if expected {
            assert_ne!(lab.pid("victim"), 0, "{case}");
        } else {
            // Not as good as new only, but good: it starts, runs and ends with its own code.
            lab.check_consistency(&case);
            lab.must("POST", "/containers/victim/start", "");
        }
        lab.wait_until_ready("victim");
        lab.must("POST", "/containers/victim/stop?t=20", "");
        let inspected = lab.inspect("victim").unwrap();
        assert_eq!(inspected["State"]["ExitCode"], 7, "{case}: {inspected}");
        settle(&lab, &case);
    }
    lab.swept(cases.len(), "kills and errors at points of start");
}

#[test]
fn a_stop_cut_off_anywhere_ends_the_container_once() {
    let Some(mut lab) = lab("points-stop") else { return };
    let mut cases: Vec<(&str, &str)> = OF_STOP.iter().map(|point| (*point, KILL)).collect();
    cases.extend(OF_DELETE.iter().flat_map(|point| [(*point, KILL), (*point, KILL_WITH_SHIM)]));
    for case @ (point, action) in &cases {
        lab.create("victim", VICTIM, &json!({}));
        lab.start_victim("victim");
        let status = strike(&mut lab, *case, ("POST", "/containers/victim/stop?t=20", ""));
        let case = format!("{action} at {point}: status {status}");
        // Unanswered, it is tried again, as a client would; answered, it is so.
        if !(200..400).contains(&status) {
            lab.must("POST", "/containers/victim/stop?t=20", "");
        }
        let inspected = lab.inspect("victim").unwrap();
        assert_eq!(inspected["State"]["Status"], "exited", "{case}: {inspected}");
        // A shim that is killed before it has written the exit takes the code along, and says so.
        let lost = *point == "exit-reaped";
        let code = if lost { 137 } else { 7 };
        assert_eq!(inspected["State"]["ExitCode"], code, "{case}: {inspected}");
        let error = inspected["State"]["Error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("shim died"), lost, "{case}: {error}");
        let ends = ends_told(&lab);
        assert!(ends <= 1, "{case}: told {ends} times");
        settle(&lab, &case);
    }
    lab.swept(cases.len(), "kills at points of stop");
}

/// Points on the way of a signal that ends a container by hand, and the call that sends it.
const OF_KILL: &[(&str, &str, &str)] = &[
    ("kill-recorded", "POST", "/containers/victim/kill"),
    ("kill-signalled", "POST", "/containers/victim/kill"),
    ("kill-signalled", "POST", "/containers/victim/kill?signal=TERM"),
    ("stop-signalled", "POST", "/containers/victim/stop?t=20"),
    ("removal-signalled", "DELETE", "/containers/victim?force=1"),
];

#[test]
fn what_was_ended_by_hand_is_not_started_again_by_an_engine_that_died_over_it() {
    let Some(mut lab) = lab("points-kill") else { return };
    for (policy, (point, method, path)) in ["unless-stopped", "on-failure"]
        .iter()
        .flat_map(|policy| OF_KILL.iter().map(move |it| (policy, it)))
    {
        lab.create("victim", VICTIM, &json!({ "RestartPolicy": { "Name": policy } }));
        lab.start_victim("victim");
        let pid = lab.pid("victim");
        strike(&mut lab, (point, KILL), (method, path, ""));
        let case = format!("{KILL} at {point} of {method} {path} with {policy}");
        if *point == "kill-recorded" {
            // The signal was not sent, and nobody was told that it was.
            assert_eq!(lab.pid("victim"), pid, "{case}");
            lab.must(method, path, "");
        }
        lab.until(&case, || lab.state("victim").as_deref() == Some("exited"));
        let inspected = lab.inspect("victim").unwrap();
        assert_eq!(inspected["RestartCount"], 0, "{case}: {inspected}");
        settle(&lab, &case);
    }
    lab.swept(OF_KILL.len() * 2, "kills at points of kill, stop and removal with a restart policy");
}

/// How often this brigd told the end of the victim.
fn ends_told(lab: &Lab) -> usize {
    let id = lab.inspect("victim").unwrap()["Id"].as_str().unwrap().to_owned();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let path = format!(
        "/events?since=0&until={}&filters={{\"container\":[\"{id}\"],\"event\":[\"die\"]}}",
        now.as_secs()
    );
    let answer = lab.must("GET", &path.replace('"', "%22").replace('[', "%5B"), "");
    answer.body.lines().filter(|line| line.contains("die")).count()
}

#[test]
fn a_removal_cut_off_anywhere_is_finished_or_can_be_repeated() {
    let Some(mut lab) = lab("points-remove") else { return };
    for point in OF_REMOVE {
        lab.create("victim", VICTIM, &json!({}));
        let call = ("DELETE", "/containers/victim?v=1", "");
        let status = strike(&mut lab, (point, KILL), call);
        let case = format!("{KILL} at {point}: status {status}");
        // The intent is on disk at each of these points, so the next brigd finishes it.
        assert!(lab.inspect("victim").is_none(), "{case}");
        settle(&lab, &case);
        // The same of a container that runs.
        lab.create("victim", VICTIM, &json!({}));
        lab.must("POST", "/containers/victim/start", "");
        strike(&mut lab, (point, KILL), ("DELETE", "/containers/victim?force=1", ""));
        assert!(lab.inspect("victim").is_none(), "{case}, forced");
        settle(&lab, &case);
    }
    lab.swept(OF_REMOVE.len() * 2, "kills at points of removal");
}

#[test]
fn an_exec_cut_off_anywhere_leaves_the_container_as_it_was() {
    let Some(mut lab) = lab("points-exec") else { return };
    lab.create("victim", VICTIM, &json!({}));
    lab.must("POST", "/containers/victim/start", "");
    let pid = lab.pid("victim");
    let exec = json!({ "Cmd": ["true"], "AttachStdout": true }).to_string();
    for (point, action) in [
        ("exec-added", KILL),
        ("exec-started", KILL),
        ("exec-added", "eio"),
        ("exec-started", "eio"),
    ] {
        let made = lab.must("POST", "/containers/victim/exec", &exec).json();
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        let body = json!({ "Detach": true }).to_string();
        strike(&mut lab, (point, action), ("POST", &path, &body));
        let case = format!("{action} at {point}");
        assert_eq!(lab.pid("victim"), pid, "{case}");
        lab.check_consistency(&case);
        let again = lab.engine.docker(&["exec", "victim", "sh", "-c", "echo hi; exit 4"]);
        assert_eq!((again.code, again.stdout.trim()), (Some(4), "hi"), "{case}: {again:?}");
    }
    lab.must("DELETE", "/containers/victim?force=1", "");
    lab.swept(4, "kills and errors at points of exec");
}
