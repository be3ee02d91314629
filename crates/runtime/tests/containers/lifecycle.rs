//! Create, start, kill, delete, and what goes wrong between them.

use std::os::fd::AsFd as _;

use brig_runtime::pidfd::{Exit, wait_child};
use brig_runtime::{CreateOptions, ErrorKind, KillScope, Status};
use serde_json::json;

use crate::support::{Fixture, null};

#[test]
fn a_container_goes_through_its_states() {
    let Some(mut fixture) = Fixture::new("a_container_goes_through_its_states") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let pid_file = fixture.path("pid");
    let options = CreateOptions {
        stdio: null(),
        pid_file: Some(pid_file.clone()),
        ..CreateOptions::default()
    };
    let created = fixture.create(options).unwrap();
    let container = fixture.runtime.container(&fixture.id).unwrap();
    assert_eq!(container.status().unwrap(), Status::Created);
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), created.pid.to_string());
    container.start().unwrap();
    assert_eq!(container.status().unwrap(), Status::Running);
    assert_eq!(container.start().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(container.delete(false).unwrap_err().kind(), ErrorKind::Conflict);
    container.pause().unwrap();
    assert_eq!(container.status().unwrap(), Status::Paused);
    container.resume().unwrap();
    let states = fixture.runtime.list().unwrap();
    assert_eq!((states.len(), states[0].pid), (1, created.pid));
    container.kill(libc::SIGTERM, KillScope::Init).unwrap();
    container.kill(libc::SIGKILL, KillScope::Init).unwrap();
    assert_eq!(wait_child(created.pidfd.as_fd()).unwrap(), Exit::Signal(9));
    assert_eq!(container.status().unwrap(), Status::Stopped);
    let error = container.kill(libc::SIGKILL, KillScope::Init).unwrap_err();
    assert!(error.to_string().contains("container not running"), "{error}");
    container.delete(false).unwrap();
    assert_eq!(fixture.runtime.container(&fixture.id).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(container.state().is_err());
}

#[test]
fn exit_codes_and_signals_come_through() {
    let Some(mut fixture) = Fixture::new("exit_codes_and_signals_come_through") else { return };
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 42", Exit::Code(42)),
        ("exec sh -c 'exit 255'", Exit::Code(255)),
    ] {
        fixture.script(script);
        assert_eq!(fixture.run().unwrap().exit, exit, "{script}");
    }
}

#[test]
fn a_missing_program_is_told_at_create_and_leaves_nothing() {
    let Some(mut fixture) = Fixture::new("a_missing_program_is_told_at_create_and_leaves_nothing")
    else {
        return;
    };
    for (program, words) in [
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc", "exec: \"/etc\": permission denied"),
    ] {
        fixture.set("/process/args", json!([program]));
        let error = fixture.run().unwrap_err().chain();
        assert!(error.contains(words), "{error}");
        assert!(fixture.runtime.container(&fixture.id).is_err());
    }
}

#[test]
fn a_program_that_is_no_program_is_told_at_start() {
    let Some(mut fixture) = Fixture::new("a_program_that_is_no_program_is_told_at_start") else {
        return;
    };
    let path = fixture.path("rootfs/bin/junk");
    std::fs::write(&path, "\0junk").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fixture.set("/process/args", json!(["junk"]));
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("exec: \"junk\": exec format error"), "{error}");
}

#[test]
fn an_id_can_be_used_once_at_a_time() {
    let Some(mut fixture) = Fixture::new("an_id_can_be_used_once_at_a_time") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let error =
        fixture.create(CreateOptions { stdio: null(), ..CreateOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(created.container.status().unwrap(), Status::Running, "the first is not harmed");
    created.container.delete(true).unwrap();
    wait_child(created.pidfd.as_fd()).unwrap();
    fixture.set("/process/args", json!(["true"]));
    assert_eq!(fixture.run().unwrap().exit, Exit::Code(0), "the id is free again");
}

#[test]
fn deleting_a_created_container_kills_its_init() {
    let Some(mut fixture) = Fixture::new("deleting_a_created_container_kills_its_init") else {
        return;
    };
    fixture.script("exit 3");
    let created =
        fixture.create(CreateOptions { stdio: null(), ..CreateOptions::default() }).unwrap();
    created.container.delete(false).unwrap();
    assert_eq!(wait_child(created.pidfd.as_fd()).unwrap(), Exit::Signal(9));
}

#[test]
fn kill_all_reaches_every_process() {
    let Some(mut fixture) = Fixture::new("kill_all_reaches_every_process") else { return };
    fixture.script("sleep 1000 & sleep 1000 & exec sleep 1000");
    let created = fixture.start();
    while created.container.pids().unwrap().len() < 3 {
        std::thread::yield_now();
    }
    created.container.kill(libc::SIGKILL, KillScope::All).unwrap();
    assert_eq!(wait_child(created.pidfd.as_fd()).unwrap(), Exit::Signal(9));
    created.container.delete(false).unwrap();
}

#[test]
fn containers_are_made_in_parallel_from_one_process() {
    let test = "containers_are_made_in_parallel_from_one_process";
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let Some(mut fixture) = Fixture::new(test) else { return };
                    assert_eq!(fixture.output("echo hello"), "hello\n");
                }
            });
        }
    });
}

#[test]
fn preserved_descriptors_are_passed_on_and_no_others() {
    let Some(mut fixture) = Fixture::new("preserved_descriptors_are_passed_on_and_no_others")
    else {
        return;
    };
    let output = fixture.output("ls /proc/self/fd");
    // 3 is the directory that ls reads.
    assert_eq!(output, "0\n1\n2\n3\n");
}

#[test]
fn bad_configurations_are_named_and_leave_nothing() {
    let Some(mut fixture) = Fixture::new("bad_configurations_are_named_and_leave_nothing") else {
        return;
    };
    let good = fixture.config.clone();
    for (pointer, value, words) in [
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!([]), "process.args is empty"),
        ("/process/args", json!(7), "config.json"),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/x"}), "kernel.core_pattern"),
        ("/linux/intelRdt", json!({}), "linux.intelRdt"),
        ("/linux/rootfsPropagation", json!("sideways"), "sideways"),
        ("/root/path", json!("nowhere"), "nowhere"),
        ("/mounts", json!([{"destination": ""}]), "destination"),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
    ] {
        fixture.config = good.clone();
        fixture.set(pointer, value);
        let error = fixture.run().unwrap_err();
        assert!(error.chain().contains(words), "{pointer}: {}", error.chain());
        assert!(fixture.runtime.container(&fixture.id).is_err(), "{pointer}");
    }
}
