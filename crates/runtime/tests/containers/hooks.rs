//! Hooks, their order and their namespaces.

use brig_runtime::CreateOptions;
use serde_json::{Value, json};

use crate::support::{Fixture, null};

fn hook(script: &str) -> Value {
    json!([{"path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}])
}

#[test]
fn all_hooks_run_in_order_and_where_they_should() {
    let Some(mut fixture) = Fixture::new("all_hooks_run_in_order_and_where_they_should") else {
        return;
    };
    let log = fixture.path("log");
    let log_text = log.display().to_string();
    let line = |name: &str| {
        format!(
            "state=$(cat); n=$(readlink /proc/self/ns/mnt); \
             s=$(echo \"$state\" | grep -o '\"status\":\"[a-z]*\"'); echo {name} $n $s >> {log_text}"
        )
    };
    // In the container only its own files are there: the log is bound into it.
    std::fs::write(&log, "").unwrap();
    fixture.push(
        "/mounts",
        json!({"destination": log_text, "type": "bind", "source": log_text, "options": ["bind"]}),
    );
    fixture.set(
        "/hooks",
        json!({
            "prestart": hook(&line("prestart")),
            "createRuntime": hook(&line("createRuntime")),
            "createContainer": hook(&line("createContainer")),
            "startContainer": hook(&line("startContainer")),
            "poststart": hook(&line("poststart")),
            "poststop": hook(&line("poststop")),
        }),
    );
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let inside = std::fs::read_link(format!("/proc/{}/ns/mnt", created.pid)).unwrap();
    created.container.delete(true).unwrap();
    let outside = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let (inside, outside) = (inside.display(), outside.display());
    let expected = format!(
        "prestart {outside} \"status\":\"creating\"\n\
         createRuntime {outside} \"status\":\"creating\"\n\
         createContainer {inside} \"status\":\"creating\"\n\
         startContainer {inside} \"status\":\"created\"\n\
         poststart {outside} \"status\":\"running\"\n\
         poststop {outside} \"status\":\"stopped\"\n"
    );
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
    brig_runtime::pidfd::wait_child(std::os::fd::AsFd::as_fd(&created.pidfd)).unwrap();
}

#[test]
fn a_failing_hook_stops_the_container_and_is_named() {
    let Some(mut fixture) = Fixture::new("a_failing_hook_stops_the_container_and_is_named") else {
        return;
    };
    for (kind, words) in [
        ("prestart", "prestart hook \"/bin/busybox\": exit status: 3, stderr: \"why\""),
        ("createRuntime", "createRuntime hook"),
        ("createContainer", "run createContainer hook \"/bin/busybox\": EIO (exit status 003)"),
        ("startContainer", "run startContainer hook \"/bin/busybox\": EIO (exit status 003)"),
    ] {
        fixture.set("/hooks", json!({kind: hook("echo why >&2; exit 3")}));
        let error = fixture.run().unwrap_err().chain();
        assert!(error.contains(words), "{kind}: {error}");
        assert!(fixture.runtime.container(&fixture.id).is_err(), "{kind}");
    }
}

#[test]
fn a_hook_is_killed_at_its_timeout() {
    let Some(mut fixture) = Fixture::new("a_hook_is_killed_at_its_timeout") else { return };
    for kind in ["createRuntime", "createContainer"] {
        let mut hooks = hook("exec sleep 1000");
        hooks[0]["timeout"] = json!(1);
        fixture.set("/hooks", json!({kind: hooks}));
        let options = CreateOptions { stdio: null(), ..CreateOptions::default() };
        let error = fixture.create(options).unwrap_err().chain();
        assert!(error.contains("timeout"), "{kind}: {error}");
    }
}
