//! The runtime alone, as another engine drives it.

use std::fs;
use std::process::Command;

use support::engine::eventually;

use crate::guest::{cgroup_value, is_here, is_unified, run};

#[test]
fn a_bundle_runs_with_its_limits_in_the_cgroup_it_names() {
    if !is_here("a_bundle_runs_with_its_limits") {
        return;
    }
    let bundle = tempfile::tempdir().unwrap();
    fs::create_dir_all(bundle.path().join("rootfs/bin")).unwrap();
    for name in ["sh", "sleep"] {
        fs::copy("/bin/busybox", bundle.path().join("rootfs/bin").join(name)).unwrap();
    }
    fs::write(bundle.path().join("config.json"), configuration("/brig-vm/limited")).unwrap();
    let runtime =
        |words: &[&str]| run(Command::new("brig-runtime").args(words).current_dir(bundle.path()));
    let id = "limited";
    let _ = runtime(&["run", "--detach", id]).success();
    let state = runtime(&["state", id]).success();
    let field = |name: &str| {
        let rest = state.split(&format!("\"{name}\":")).nth(1).unwrap().trim_start();
        rest.trim_start_matches('"').split(['"', ',', '\n']).next().unwrap().to_owned()
    };
    assert_eq!(field("status"), "running");
    let pid: u32 = field("pid").parse().unwrap();
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(membership.contains("/brig-vm/limited"), "{membership}");
    let memory = if is_unified() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(cgroup_value(pid, "memory", memory), "33554432");
    assert_eq!(cgroup_value(pid, "pids", "pids.max"), "16");
    let listed = runtime(&["ps", "--format", "json", id]).success();
    assert!(listed.contains(&pid.to_string()), "{listed}");

    let _ = runtime(&["pause", id]).success();
    assert!(runtime(&["state", id]).success().contains("paused"));
    let _ = runtime(&["resume", id]).success();
    let _ = runtime(&["kill", id, "KILL"]).success();
    eventually("the end of the container", || {
        runtime(&["state", id]).success().contains("stopped").then_some(())
    });
    let _ = runtime(&["delete", id]).success();
    let hierarchy = if is_unified() { "" } else { "memory/" };
    let parent = format!("/sys/fs/cgroup/{hierarchy}brig-vm");
    assert!(
        !fs::exists(format!("{parent}/limited")).unwrap(),
        "the cgroup goes with the container"
    );
}

/// A container that sleeps, limited to 32 MiB and 16 processes.
fn configuration(cgroup: &str) -> String {
    let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"]
        .map(|kind| format!(r#"{{"type": "{kind}"}}"#))
        .join(", ");
    format!(
        r#"{{
  "ociVersion": "1.0.2",
  "root": {{"path": "rootfs"}},
  "process": {{
    "cwd": "/", "user": {{"uid": 0, "gid": 0}}, "args": ["sleep", "1000"], "env": ["PATH=/bin"]
  }},
  "mounts": [{{"destination": "/proc", "type": "proc", "source": "proc"}}],
  "linux": {{
    "namespaces": [{namespaces}],
    "cgroupsPath": "{cgroup}",
    "resources": {{"memory": {{"limit": 33554432}}, "pids": {{"limit": 16}}}}
  }}
}}"#
    )
}
