//! Seccomp notifications, answered by an agent that gets the listener as the specification says.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::{Fixture, exec, shell};

/// `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND` (linux/seccomp.h).
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// Takes one listener and answers its notifications until nobody is bound by the filter any more: directories are not
/// made, with an error of its own; everything else goes on.
fn agent(socket: &UnixListener) -> (Value, u32) {
    let (connection, _) = socket.accept().unwrap();
    let mut buffer = vec![0; 1 << 16];
    let (length, fds) = brig_linux::fd::receive_with_fds(connection.as_fd(), &mut buffer).unwrap();
    let state: Value = serde_json::from_slice(&buffer[..length]).unwrap();
    assert_eq!(fds.len(), 1);
    (state, answer(&fds[0]))
}

#[expect(unsafe_code, reason = "the agent's two ioctls")]
fn answer(listener: &OwnedFd) -> u32 {
    let mut answered = 0;
    loop {
        let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        if !fds[0].revents().contains(rustix::event::PollFlags::IN) {
            return answered;
        }
        // SAFETY: plain integers, which the kernel wants to be zero.
        let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the structure.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut request) } != 0 {
            // The caller has ended meanwhile.
            continue;
        }
        let makes_directory =
            [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&i64::from(request.data.nr));
        answered += u32::from(makes_directory);
        let response = libc::seccomp_notif_resp {
            id: request.id,
            val: 0,
            error: if makes_directory { -libc::EXDEV } else { 0 },
            // SECCOMP_USER_NOTIF_FLAG_CONTINUE
            flags: u32::from(!makes_directory),
        };
        // SAFETY: the kernel reads the structure.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) };
    }
}

fn profile(fixture: &Fixture) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": fixture.path("agent.sock"),
        "listenerMetadata": "meta data",
        "syscalls": [{
            // With those that would hand the listener over, if the bound process did it itself.
            "names": ["mkdir", "mkdirat", "execve", "sendmsg", "close", "waitid", "capset"],
            "action": "SCMP_ACT_NOTIFY"
        }]
    })
}

fn serve(fixture: &Fixture) -> JoinHandle<(Value, u32)> {
    let _ = std::fs::remove_file(fixture.path("agent.sock"));
    let socket = UnixListener::bind(fixture.path("agent.sock")).unwrap();
    std::thread::spawn(move || agent(&socket))
}

#[test]
fn an_agent_answers_for_init() {
    let Some(mut fixture) = Fixture::new("an_agent_answers_for_init") else { return };
    fixture.set("/annotations", json!({"a.key": "value"}));
    for no_new_privileges in [true, false] {
        fixture.set("/process/noNewPrivileges", json!(no_new_privileges));
        let profile = profile(&fixture);
        fixture.set("/linux/seccomp", profile);
        let served = serve(&fixture);
        let output = fixture.output("mkdir /x 2>&1 || true; ls /proc/self/fd | wc -l");
        assert!(output.contains("Invalid cross-device link"), "{output}");
        assert!(output.ends_with("\n4\n"), "no descriptor is left in the container: {output}");
        let (state, answered) = served.join().unwrap();
        assert_eq!(answered, 1);
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "meta data");
        assert_eq!(state["state"]["id"], fixture.id.as_str());
        assert_eq!(state["state"]["annotations"], json!({"a.key": "value"}));
        assert!(state["pid"].as_i64().unwrap() > 0);
        assert_eq!(state["pid"], state["state"]["pid"]);
    }
}

#[test]
fn an_agent_answers_for_an_exec() {
    let Some(mut fixture) = Fixture::new("an_agent_answers_for_an_exec") else { return };
    let profile = profile(&fixture);
    fixture.set("/linux/seccomp", profile);
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let init = serve(&fixture);
    let created = fixture.start();
    let served = serve(&fixture);
    let output = exec(&created.container, &shell("mkdir /x 2>&1 || true")).unwrap();
    assert!(output.stdout.contains("Invalid cross-device link"), "{output:?}");
    let (state, answered) = served.join().unwrap();
    assert_eq!(answered, 1);
    assert_eq!(state["state"]["status"], "running");
    assert_eq!(state["state"]["pid"], created.pid);
    assert_ne!(state["pid"], created.pid);
    created.container.delete(true).unwrap();
    init.join().unwrap();
}

#[test]
fn without_an_agent_nothing_starts() {
    let Some(mut fixture) = Fixture::new("without_an_agent_nothing_starts") else { return };
    let profile = profile(&fixture);
    fixture.set("/linux/seccomp", profile);
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("linux.seccomp.listenerPath"), "{error}");
    assert!(fixture.runtime.container(&fixture.id).is_err());
}
