//! Full disks, broken disks, too many open files (F2): an error that says so, nothing half done, removal still works,
//! and all is well once the fault is over.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::engine::{Engine, Setup, eventually};

use crate::lab::{Lab, VICTIM};
use crate::syscalls::{Injector, has_strace};

/// Room for the image and little more, in MiB.
const ROOT_MIB: u32 = 24;

#[test]
fn a_full_disk_is_an_error_and_never_stands_in_the_way_of_removal() {
    let setup = Setup { root_mib: Some(ROOT_MIB), ..Setup::default() };
    let Some(engine) = Engine::start_as("disk-full", setup) else { return };
    let root = engine.path("root").display().to_string();
    engine.load_busybox();
    let lab = Lab::around(engine);
    lab.create("before", VICTIM, &json!({}));
    lab.create("running", VICTIM, &json!({}));
    lab.start_victim("running");
    // dd ends with an error once nothing fits any more.
    let fill = format!("of={root}/fill");
    let _ = lab.engine.on_host(&["dd", "if=/dev/zero", &fill, "bs=4k", "status=none"]);
    let body = Lab::creation(VICTIM, &json!({}));
    for round in 0..3 {
        let refused = lab.try_call("POST", "/containers/create?name=refused", &body).unwrap();
        assert!(refused.status >= 500, "round {round}: {refused:?}");
        let text = refused.body.to_lowercase();
        assert!(text.contains("space") || text.contains("previous"), "round {round}: {refused:?}");
    }
    assert!(lab.inspect("refused").is_none());
    // What ends something works, whatever cannot be written down.
    lab.must("POST", "/containers/running/stop", "");
    assert_eq!(lab.inspect("running").unwrap()["State"]["ExitCode"], 7);
    let removed = lab.try_call("DELETE", "/containers/running?force=1", "").unwrap();
    let _ = lab.engine.on_host(&["rm", &format!("{root}/fill")]).success();
    if !removed.is_success() {
        // Its files are gone; the row needed room.
        lab.must("DELETE", "/containers/running?force=1", "");
    }
    assert!(lab.inspect("running").is_none());
    lab.check_consistency("after a full disk");
    lab.must("POST", "/containers/before/start", "");
    lab.check_reuse("after a full disk", "before");
    lab.check_reuse("after a full disk", "refused");
}

/// What brigd's calls answer while it does something.
const OF_BRIGD: &[&str] = &[
    "fsync,fdatasync:error=EIO",
    "fsync,fdatasync:error=ENOSPC",
    "pwrite64:error=ENOSPC",
    "pwrite64:error=EIO",
    "rename,renameat,renameat2:error=ENOSPC",
    "rename,renameat,renameat2:error=EIO",
    "mkdir,mkdirat:error=ENOSPC",
    "openat:error=EMFILE",
    "mount:error=EIO",
    "unshare,setns:error=ENOMEM",
];

#[test]
fn a_failing_disk_beneath_brigd_fails_the_call_and_nothing_else() {
    if !has_strace("disk-brigd") {
        return;
    }
    let Some(lab) = Lab::start("disk-brigd", Setup::default()) else { return };
    let body = Lab::creation(VICTIM, &json!({}));
    let mut failed = 0;
    for fault in OF_BRIGD {
        let strace = attach(lab.engine.daemon_pid(), fault);
        let created = lab.try_call("POST", "/containers/create?name=victim", &body);
        detach(strace);
        let created = created.unwrap();
        failed += usize::from(!created.is_success());
        assert_eq!(created.is_success(), lab.inspect("victim").is_some(), "{fault}: {created:?}");
        if !created.is_success() {
            assert!(created.status >= 500, "{fault}: {created:?}");
            lab.create("victim", VICTIM, &json!({}));
        }
        let strace = attach(lab.engine.daemon_pid(), fault);
        let started = lab.try_call("POST", "/containers/victim/start", "");
        detach(strace);
        let started = started.unwrap();
        failed += usize::from(!started.is_success());
        lab.check_bystander(fault);
        if started.is_success() {
            assert_eq!(lab.state("victim").as_deref(), Some("running"), "{fault}");
        } else {
            lab.until("the start's end", || lab.state("victim").as_deref() != Some("running"));
        }
        let strace = attach(lab.engine.daemon_pid(), fault);
        let removed = lab.try_call("DELETE", "/containers/victim?force=1", "");
        detach(strace);
        let removed = removed.unwrap();
        failed += usize::from(!removed.is_success());
        lab.check_reuse(fault, "victim");
        lab.check_consistency(fault);
    }
    lab.swept(OF_BRIGD.len() * 3, &format!("injected errors in brigd ({failed} calls failed)"));
}

/// Lets calls of all threads of a process fail from now on.
fn attach(pid: u32, fault: &str) -> Child {
    let (calls, _) = fault.split_once(':').unwrap();
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={fault}"), "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("strace to attach", || traced(pid).then_some(()));
    strace
}

/// Every thread has a tracer.
fn traced(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let text = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !text.lines().any(|line| line == "TracerPid:\t0")
    })
}

fn detach(mut strace: Child) {
    let pid = i32::try_from(strace.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    strace.wait().unwrap();
}

/// What calls of the shim and all its children answer, with the first call that fails.
const OF_SHIM: &[&str] = &[
    "fsync,fdatasync:error=EIO",
    "write:error=ENOSPC",
    "rename,renameat,renameat2:error=ENOSPC",
    "openat:error=EMFILE",
    "mkdir,mkdirat:error=ENOSPC",
    "mount,fsmount,move_mount,open_tree:error=EIO",
    "clone,clone3,fork:error=EAGAIN",
    "socket,socketpair:error=EMFILE",
    "epoll_ctl:error=ENOSPC",
];
const FIRST_FAILING: &[usize] = &[1, 2, 4, 8, 16];

#[test]
fn a_failing_call_beneath_the_shim_fails_the_start_and_nothing_else() {
    if !has_strace("disk-shim") {
        return;
    }
    let injector = Injector::new();
    let Some(lab) = Lab::start("disk-shim", injector.setup()) else { return };
    let (mut tried, mut failed) = (0, 0);
    for fault in OF_SHIM {
        for first in FIRST_FAILING {
            let case = format!("{fault}:when={first}+");
            lab.create("victim", VICTIM, &json!({ "NetworkMode": "none" }));
            injector.inject(&case);
            let started = lab.try_call("POST", "/containers/victim/start", "").unwrap();
            injector.inject("");
            tried += 1;
            if !started.is_success() {
                failed += 1;
                let message = started.json()["message"].as_str().unwrap_or_default().to_owned();
                assert!(!message.is_empty(), "{case}: {started:?}");
                assert_ne!(lab.state("victim").as_deref(), Some("running"), "{case}");
            }
            lab.check_bystander(&case);
            lab.check_reuse(&case, "victim");
            lab.check_consistency(&case);
        }
    }
    lab.swept(tried, &format!("injected errors in the shim ({failed} starts failed)"));
}
