//! The runtime with systemd as the maker of cgroups.

use std::fs;

use crate::bundle::Bundle;
use crate::guest::{cgroup_value, is_here, is_unified, systemctl};

const SWITCHES: &[&str] = &["--systemd-cgroup"];

/// Properties of a unit, one a line.
fn properties(unit: &str, names: &str) -> String {
    systemctl(&["show", "--property", names, unit]).success()
}

#[test]
fn a_scope_of_systemd_holds_a_container_and_its_limits() {
    if !is_here("a_scope_of_systemd_holds_a_container_and_its_limits") {
        return;
    }
    let unit = "vm-scoped.scope";
    let path = "system.slice:vm:scoped";
    let bundle = Bundle::new("scoped", SWITCHES, path, &["sleep", "1000"]);
    let _ = bundle.runtime(&["run", "--detach"]).success();
    let pid = bundle.pid();
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(membership.contains("/system.slice/vm-scoped.scope"), "{membership}");
    let shown = properties(unit, "ActiveState,Delegate,MemoryMax,MemoryLimit,TasksMax");
    let limit = if is_unified() { "MemoryMax=33554432" } else { "MemoryLimit=33554432" };
    for property in ["ActiveState=active", "Delegate=yes", "TasksMax=16", limit] {
        assert!(shown.lines().any(|line| line == property), "{property} in {shown}");
    }
    // systemd writes what it knows whenever it reads its units again.
    let _ = systemctl(&["daemon-reload"]).success();
    let memory = if is_unified() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(cgroup_value(pid, "memory", memory), "33554432");
    assert_eq!(cgroup_value(pid, "pids", "pids.max"), "16");
    bundle.end();
    let shown = properties(unit, "ActiveState,LoadState");
    assert!(shown.contains("LoadState=not-found"), "the scope goes with the container: {shown}");
}

#[test]
fn a_container_in_a_scope_that_takes_too_much_memory_is_killed() {
    if !is_here("a_container_in_a_scope_that_takes_too_much_memory_is_killed") {
        return;
    }
    let path = "system.slice:vm:greedy";
    let bundle = Bundle::new("greedy", SWITCHES, path, &["tail", "/dev/zero"]);
    assert_eq!(bundle.runtime(&["run"]).code, Some(137));
    let shown = properties("vm-greedy.scope", "LoadState");
    assert_eq!(shown, "LoadState=not-found", "neither it nor a failed unit stays");
}
