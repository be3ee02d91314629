//! Limits as the kernel holds them, on either version of cgroups, and that they bite.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::guest::{Engine, brig, cgroup_value, is_unified, pid};

#[test]
fn limits_reach_the_kernel() {
    let Some(_engine) = Engine::turn("limits_reach_the_kernel") else { return };
    let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "20"];
    let words = [&["run", "-d", "--name", "bound"][..], &limits, &["busybox", "sleep", "1000"]];
    let _ = brig(&words.concat()).success();
    let pid = pid("bound");
    let expected: &[(&str, &str, &str)] = if is_unified() {
        &[
            ("memory", "memory.max", "67108864"),
            ("cpu", "cpu.max", "50000 100000"),
            ("pids", "pids.max", "20"),
        ]
    } else {
        &[
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.cfs_period_us", "100000"),
            ("pids", "pids.max", "20"),
        ]
    };
    for (controller, file, value) in expected {
        assert_eq!(cgroup_value(pid, controller, file), *value, "{file}");
    }
    let bomb = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all";
    let bomb = brig(&["exec", "bound", "sh", "-c", bomb]);
    assert!(bomb.code != Some(0) && !bomb.stdout.contains("all"), "{bomb:?}");
    let stats = brig(&["stats", "--no-stream", "bound"]).success();
    assert!(stats.contains("64MiB"), "{stats}");
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_says_so() {
    let Some(_engine) = Engine::turn("a_container_that_takes_too_much_memory") else { return };
    let words = ["run", "--name", "big", "--memory", "16m", "busybox", "tail", "/dev/zero"];
    assert_eq!(brig(&words).code, Some(137));
    let state = "{{.State.OOMKilled}} {{.State.ExitCode}}";
    assert_eq!(brig(&["inspect", "--format", state, "big"]).success(), "true 137");
}

#[test]
fn devices_that_were_not_given_are_denied() {
    let Some(_engine) = Engine::turn("devices_that_were_not_given_are_denied") else { return };
    // Making a node is allowed, as docker allows it; opening it is what counts. 1:5 is zeros, the other the guest's disk.
    let disk = fs::metadata("/dev/vda").unwrap().rdev();
    let (major, minor) = (rustix::fs::major(disk), rustix::fs::minor(disk));
    let script = format!(
        "mknod /zero c 1 5 && mknod /disk b {major} {minor} && head -c 4 /zero | wc -c && head -c 4 /disk"
    );
    let denied = brig(&["run", "--name", "nodes", "busybox", "sh", "-c", &script]);
    assert_eq!(denied.stdout.trim(), "4", "{denied:?}");
    assert!(denied.stderr.contains("Operation not permitted"), "{denied:?}");
    let words = ["run", "--name", "given", "--device", "/dev/vda:/dev/disk:r", "busybox"];
    let script = "head -c 4 /dev/disk | wc -c; : >>/dev/disk";
    let given = brig(&[&words[..], &["sh", "-c", script]].concat());
    assert_eq!(given.stdout.trim(), "4", "{given:?}");
    assert!(given.stderr.contains("Operation not permitted"), "read only: {given:?}");
}
