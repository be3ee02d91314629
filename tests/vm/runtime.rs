//! The runtime alone, in a cgroup that it makes itself.

use std::fs;
use std::path::Path;

use crate::bundle::Bundle;
use crate::guest::{cgroup_value, is_here, is_unified};

#[test]
fn a_bundle_runs_with_its_limits_in_the_cgroup_it_names() {
    if !is_here("a_bundle_runs_with_its_limits_in_the_cgroup_it_names") {
        return;
    }
    let bundle = Bundle::new("limited", &[], "/brig-vm/limited", &["sleep", "1000"]);
    let _ = bundle.runtime(&["run", "--detach"]).success();
    let pid = bundle.pid();
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(membership.contains("/brig-vm/limited"), "{membership}");
    let memory = if is_unified() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(cgroup_value(pid, "memory", memory), "33554432");
    assert_eq!(cgroup_value(pid, "pids", "pids.max"), "16");
    let listed = bundle.runtime(&["ps", "--format", "json"]).success();
    assert!(listed.contains(&pid.to_string()), "{listed}");

    let _ = bundle.runtime(&["pause"]).success();
    assert_eq!(bundle.state()["status"], "paused");
    let _ = bundle.runtime(&["resume"]).success();
    bundle.end();
    let hierarchy = if is_unified() { "" } else { "memory/" };
    let cgroup = format!("/sys/fs/cgroup/{hierarchy}brig-vm/limited");
    assert!(!Path::new(&cgroup).exists(), "the cgroup goes with the container");
}
