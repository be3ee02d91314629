//! A program says that it is ready, to a service manager outside.

use std::io::IoSliceMut;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::text;

/// Reads what the manager is told, until the barrier, which it passes by closing the descriptor.
fn manage(socket: &UnixDatagram) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 256];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let length =
            recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let message = text(&bytes[..length]);
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.count()),
            _ => None,
        });
        if descriptors.sum::<usize>() == 1 {
            assert_eq!(message, "BARRIER=1");
            return told;
        }
        told.push(message);
    }
}

/// Starts the program under a service manager.
fn under_a_manager(bundle: &Bundle, arguments: &[&str]) -> Child {
    let mut command = bundle.command(arguments);
    command.env("NOTIFY_SOCKET", bundle.directory.join("manager.sock"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The number of the container's first process, once its program runs.
fn running(bundle: &Bundle, child: &mut Child) -> i64 {
    loop {
        let output = bundle.call(&["state", &bundle.id]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if state["status"] == "running" {
            return state["pid"].as_i64().unwrap();
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended: {output:?}");
    }
}

/// Says from inside, by the container's own mount, that the program is ready.
fn say_ready(pid: i64) {
    let inside = format!("/proc/{pid}/root/run/notify/notify.sock");
    let program = UnixDatagram::unbound().unwrap();
    program.send_to(b"STATUS=about to be\nMAINPID=1", &inside).unwrap();
    program.send_to(b"STATUS=is\nREADY=1", &inside).unwrap();
}

#[test]
fn readiness_reaches_the_service_manager() {
    let Some(bundle) = Bundle::new("readiness_reaches_the_service_manager") else { return };
    bundle.script(
        "[ $NOTIFY_SOCKET = /run/notify/notify.sock ] && [ -S $NOTIFY_SOCKET ] && exec sleep 1000",
    );
    let manager = UnixDatagram::bind(bundle.directory.join("manager.sock")).unwrap();
    let (path, id) = (bundle.path(), bundle.id.as_str());
    let said = |pid: i64| ["READY=1\n".to_owned(), format!("MAINPID={pid}\n")];

    // Detached, the command only answers when the program is ready.
    let mut child = under_a_manager(&bundle, &["run", "-d", "-b", &path, id]);
    let pid = running(&bundle, &mut child);
    say_ready(pid);
    assert_eq!(manage(&manager), said(pid));
    assert!(child.wait().unwrap().success());
    bundle.call(&["delete", "-f", id]);

    // In two steps.
    assert!(under_a_manager(&bundle, &["create", "-b", &path, id]).wait().unwrap().success());
    let mut child = under_a_manager(&bundle, &["start", id]);
    let pid = running(&bundle, &mut child);
    say_ready(pid);
    assert_eq!(manage(&manager), said(pid));
    assert!(child.wait().unwrap().success());
    bundle.call(&["delete", "-f", id]);

    // In the foreground, and ended without a word.
    let mut child = under_a_manager(&bundle, &["run", "-b", &path, id]);
    let pid = running(&bundle, &mut child);
    say_ready(pid);
    assert_eq!(manage(&manager), said(pid));
    bundle.call(&["kill", id, "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.script("exit 3");
    let mut child = under_a_manager(&bundle, &["run", "-b", &path, id]);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}
