//! Attacks by what a container's process inherits or may call.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use brig_runtime::protection::{Protection, without};
use brig_runtime::security::seccomp;
use serde_json::json;

use crate::support::{Fixture, Output, exec, shell};
use crate::{alone, proven};

/// R6 (CVE-2024-21626): the working directory is a directory of the host that the caller left open. Either of two
/// protections is enough.
#[test]
fn no_descriptor_of_the_caller_is_a_way_out() {
    let Some(mut fixture) = Fixture::new("no_descriptor_of_the_caller_is_a_way_out") else {
        return;
    };
    let _alone = alone();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("of-the-host"), "").unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let leak = rustix::fs::open(host.path(), flags, rustix::fs::Mode::empty()).unwrap();
    fixture.set("/process/cwd", json!(format!("/proc/self/fd/{}", leak.as_fd().as_raw_fd())));
    fixture.script("ls");
    let attack = || fixture.run().is_ok_and(|output| output.stdout.contains("of-the-host"));
    proven(&[Protection::WorkingDirectory, Protection::Descriptors], attack);
    for alone in [Protection::WorkingDirectory, Protection::Descriptors] {
        assert!(!without(&[alone], attack), "{alone:?} was the only one");
    }
}

/// R6, by a further process of a container.
#[test]
fn no_descriptor_of_an_execs_caller_is_a_way_out() {
    let test = "no_descriptor_of_an_execs_caller_is_a_way_out";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let started = fixture.start();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("of-the-host"), "").unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let leak = rustix::fs::open(host.path(), flags, rustix::fs::Mode::empty()).unwrap();
    let mut process = shell("ls");
    process["cwd"] = json!(format!("/proc/self/fd/{}", leak.as_fd().as_raw_fd()));
    proven(&[Protection::WorkingDirectory, Protection::Descriptors], || {
        exec(&started.container, &process).is_ok_and(|it| it.stdout.contains("of-the-host"))
    });
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["ls", "/proc/self/fd"]
    });
    proven(&[Protection::Descriptors], || {
        exec(&started.container, &process).unwrap().stdout.split_whitespace().count() > 4
    });
    end(&started);
}

fn end(started: &brig_runtime::Created) {
    started.container.delete(true).unwrap();
    let _ = brig_runtime::pidfd::wait_child(started.pidfd.as_fd());
}

/// R6: the program sees its three standard descriptors. (`ls` opens the fourth itself.)
#[test]
fn the_program_has_three_descriptors() {
    let Some(mut fixture) = Fixture::new("the_program_has_three_descriptors") else { return };
    let _alone = alone();
    let flags = rustix::fs::OFlags::RDONLY;
    let leaks: Vec<_> =
        (0..10).map(|_| rustix::fs::open("/", flags, rustix::fs::Mode::empty()).unwrap()).collect();
    fixture.set("/process/args", json!(["ls", "/proc/self/fd"]));
    proven(&[Protection::Descriptors], || {
        fixture.run().unwrap().stdout.split_whitespace().count() > 4
    });
    drop(leaks);
}

/// R8 (CVE-2022-24769 and its kin): inheritable capabilities that nobody asked for, of root or of another user, in a
/// container's first process or a later one. Who is not root has none in use either.
#[test]
fn no_capability_is_inheritable_unasked() {
    let Some(mut fixture) = Fixture::new("no_capability_is_inheritable_unasked") else { return };
    let _alone = alone();
    let status = ["grep", "^Cap", "/proc/self/status"];
    let capabilities = fixture.config["process"]["capabilities"].clone();
    for uid in [0, 1000] {
        let user = json!({"uid": uid, "gid": uid});
        fixture.set("/process/user", user.clone());
        fixture.set("/process/args", json!(status));
        proven(&[Protection::Inheritable], || has_unasked(&fixture.run().unwrap(), uid));
        fixture.set("/process/args", json!(["sleep", "1000"]));
        let started = fixture.start();
        let process = json!({
            "user": user, "cwd": "/", "env": ["PATH=/bin"], "args": status,
            "capabilities": capabilities
        });
        proven(&[Protection::Inheritable], || {
            has_unasked(&exec(&started.container, &process).unwrap(), uid)
        });
        end(&started);
    }
}

/// Whether the sets in a process's status hold what they should not.
fn has_unasked(output: &Output, uid: u32) -> bool {
    let is_empty = |set: &str| output.stdout.contains(&format!("{set}:\t0000000000000000\n"));
    assert!(output.stdout.contains("CapBnd"), "{output:?}");
    let unused = uid == 0 || (is_empty("CapPrm") && is_empty("CapEff"));
    !(is_empty("CapInh") && is_empty("CapAmb") && unused)
}

/// R9 (CVE-2022-2989 and its kin): supplementary groups are those configured, of a container's first process or a later
/// one, and none of its caller's.
#[test]
fn no_group_of_the_caller_is_inherited() {
    let Some(mut fixture) = Fixture::new("no_group_of_the_caller_is_inherited") else { return };
    let _alone = alone();
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 1002]});
    let process = json!({"user": user, "cwd": "/", "env": ["PATH=/bin"], "args": ["id", "-G"]});
    fixture.set("/process/user", user);
    // Groups belong to a thread, for the kernel; this one has what its caller would have.
    let caller = rustix::fs::Gid::from_raw(4242);
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            rustix::thread::set_thread_groups(&[caller]).unwrap();
            fixture.set("/process/args", json!(["id", "-G"]));
            let foreign = |output: Output| output.stdout != "1001 7 1002\n";
            proven(&[Protection::Groups], || foreign(fixture.run().unwrap()));
            fixture.set("/process/args", json!(["sleep", "1000"]));
            let started = fixture.start();
            proven(&[Protection::Groups], || foreign(exec(&started.container, &process).unwrap()));
            end(&started);
        });
        calling.join().unwrap();
    });
}

/// The session of a process, 0 where its leader is outside this PID namespace, as the caller's own may be: `getsid` gives
/// that 0 too, but rustix takes it for impossible. proc_pid_stat(5), field 6.
fn session(process: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name.split_whitespace().nth(3).unwrap().to_owned()
}

/// R14 (CVE-2016-10124): a process in the caller's session reads from and pushes into the caller's terminal.
#[test]
fn a_container_is_not_in_the_callers_session() {
    let Some(mut fixture) = Fixture::new("a_container_is_not_in_the_callers_session") else {
        return;
    };
    let _alone = alone();
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let own = session("self");
    proven(&[Protection::Session], || {
        let created = fixture.start();
        let shared = session(&created.pid.to_string()) == own;
        end(&created);
        shared
    });
}

/// R14, by a further process of a container.
#[test]
fn an_exec_is_not_in_the_callers_session() {
    let test = "an_exec_is_not_in_the_callers_session";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let started = fixture.start();
    let own = session("self");
    proven(&[Protection::Session], || {
        let process = serde_json::from_value(shell("read wait")).unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let stdin = Some(OwnedFd::from(read));
        let stdio = brig_runtime::Stdio { stdin, ..crate::support::null() };
        let options = brig_runtime::ExecOptions { stdio, ..brig_runtime::ExecOptions::default() };
        let exec = started.container.exec(&process, options).unwrap();
        let shared = session(&exec.pid.to_string()) == own;
        drop(write);
        brig_runtime::pidfd::wait_child(exec.pidfd.as_fd()).unwrap();
        shared
    });
    end(&started);
}

/// R15: the kernel takes a socket's family from the low word, so 2^32 + 40 opens what 40 would.
#[test]
fn high_words_do_not_open_a_denied_family() {
    let _alone = alone();
    let profile = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]
        }]
    }))
    .unwrap();
    proven(&[Protection::LowWord], || {
        let program = seccomp::compile(&profile).unwrap();
        // A filter without TSYNC binds its own thread and ends with it.
        std::thread::spawn(move || {
            assert!(program.install().unwrap().is_none());
            socket_of_family((1 << 32) | 40) != Some(77)
        })
        .join()
        .unwrap()
    });
}

/// The error number of socket(2) with a family that no safe wrapper can pass on.
#[expect(unsafe_code, reason = "the safe wrappers take a family of 16 bits")]
fn socket_of_family(family: u64) -> Option<i32> {
    // SAFETY: the call takes three integers; what it opens stays open until the test ends.
    let answer = unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_STREAM, 0) };
    (answer < 0).then(|| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
