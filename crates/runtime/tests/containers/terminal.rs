//! Terminals.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use brig_runtime::pidfd::wait_child;
use brig_runtime::{Console, CreateOptions, ExecOptions};
use serde_json::json;

use crate::support::{Fixture, null, shell, with_terminal};

/// Everything a terminal shows until nobody has it open.
fn read_all(master: OwnedFd) -> String {
    let mut file = std::fs::File::from(master);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // EIO is a terminal's end of file.
    while let Ok(length @ 1..) = file.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_is_the_containers_own_console() {
    let Some(mut fixture) = Fixture::new("a_terminal_is_the_containers_own_console") else {
        return;
    };
    fixture.set("/process/terminal", json!(true));
    fixture.set("/process/consoleSize", json!({"height": 33, "width": 77}));
    fixture.script("tty; stty size; ls -l /dev/console | head -c 1; echo; echo hi > /dev/console");
    let created = fixture.create(with_terminal()).unwrap();
    created.container.start().unwrap();
    let output = read_all(created.console.unwrap());
    assert_eq!(output.replace('\r', ""), "/dev/pts/0\n33 77\nc\nhi\n");
    wait_child(created.pidfd.as_fd()).unwrap();
}

#[test]
fn the_interrupt_key_reaches_the_program() {
    let Some(mut fixture) = Fixture::new("the_interrupt_key_reaches_the_program") else { return };
    fixture.set("/process/terminal", json!(true));
    fixture.script("trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done");
    let created = fixture.create(with_terminal()).unwrap();
    created.container.start().unwrap();
    let mut master = std::fs::File::from(created.console.unwrap());
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("ready") {
        let length = master.read(&mut buffer).unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    master.write_all(b"\x03").unwrap();
    assert!(read_all(master.into()).contains("interrupted"));
    assert_eq!(wait_child(created.pidfd.as_fd()).unwrap().status(), 9);
}

#[test]
fn a_console_socket_receives_the_terminal() {
    let Some(mut fixture) = Fixture::new("a_console_socket_receives_the_terminal") else { return };
    fixture.set("/process/terminal", json!(true));
    fixture.script("echo over the socket");
    let path = fixture.path("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let options = CreateOptions { console: Console::Socket(path), ..CreateOptions::default() };
    let created = fixture.create(options).unwrap();
    assert!(created.console.is_none());
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let (length, mut fds) = brig_linux::fd::receive_with_fds(stream.as_fd(), &mut name).unwrap();
    assert_eq!((&name[..length], fds.len()), (&b"/dev/ptmx"[..], 1));
    created.container.start().unwrap();
    assert_eq!(read_all(fds.remove(0)), "over the socket\r\n");
    wait_child(created.pidfd.as_fd()).unwrap();
}

#[test]
fn exec_gets_a_terminal_of_its_own() {
    let Some(mut fixture) = Fixture::new("exec_gets_a_terminal_of_its_own") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let mut process = shell("tty; test -c /dev/tty && echo controlling > /dev/tty");
    process["terminal"] = json!(true);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    let process = serde_json::from_value(process).unwrap();
    let options = ExecOptions { console: Console::Return, ..ExecOptions::default() };
    let exec = created.container.exec(&process, options).unwrap();
    let output = read_all(exec.console.unwrap());
    assert_eq!(output.replace('\r', ""), "/dev/pts/0\ncontrolling\n");
    wait_child(exec.pidfd.as_fd()).unwrap();
}

#[test]
fn a_terminal_without_a_taker_is_refused() {
    let Some(mut fixture) = Fixture::new("a_terminal_without_a_taker_is_refused") else { return };
    fixture.set("/process/terminal", json!(true));
    let options = CreateOptions { stdio: null(), ..CreateOptions::default() };
    let error = fixture.create(options).unwrap_err().chain();
    assert!(error.contains("console socket"), "{error}");
}
