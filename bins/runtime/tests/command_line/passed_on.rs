//! What a process gets besides its configuration: descriptors, and who gets a descriptor of it.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;

use crate::bundle::Bundle;
use crate::text;

/// Receives one descriptor over a listening socket.
fn receive(listener: &UnixListener) -> std::os::fd::OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.next().unwrap()
}

/// The number that a descriptor of a process stands for.
fn number_of(pidfd: &std::os::fd::OwnedFd) -> String {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let information = std::fs::read_to_string(path).unwrap();
    let line = information.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn descriptors_of_processes_reach_their_sockets() {
    let name = "descriptors_of_processes_reach_their_sockets";
    let Some(bundle) = Bundle::new(name) else { return };
    bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let socket = bundle.directory.join("pidfd.sock").display().to_string();
    let listener = UnixListener::bind(&socket).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = bundle.command(arguments);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    let file = bundle.directory.join("pid").display().to_string();
    let flags = ["--pidfd-socket", &socket, "--pid-file", &file];
    let path = bundle.path();
    run(&[&["run", "-d", "-b", &path][..], &flags, &[&bundle.id]].concat());
    assert_eq!(number_of(&receive(&listener)), std::fs::read_to_string(&file).unwrap());
    run(&[&["exec", "-d"][..], &flags, &[&bundle.id, "sleep", "1000"]].concat());
    assert_eq!(number_of(&receive(&listener)), std::fs::read_to_string(&file).unwrap());
}

/// Starts the program with descriptors 3 and 4 open, and nothing above.
fn with_two_files(bundle: &Bundle, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut first = tempfile::tempfile().unwrap();
    let second = tempfile::tempfile().unwrap();
    first.write_all(b"first").unwrap();
    let script = "exec \"$@\" 3<&0 4<&1 1>&2 2>&1 0</dev/null";
    let inner = bundle.command(arguments);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(environment.iter().copied()).stdin(first).stdout(second);
    text(&command.stderr(Stdio::piped()).output().unwrap().stderr)
}

#[test]
fn descriptors_are_passed_on_as_asked_and_no_others() {
    let name = "descriptors_are_passed_on_as_asked_and_no_others";
    let Some(bundle) = Bundle::new(name) else { return };
    bundle.script("echo $(ls /proc/self/fd) $LISTEN_FDS $LISTEN_PID");
    let path = bundle.path();
    let run = |flags: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["run", "-b", &path][..], flags, &[&bundle.id]].concat();
        with_two_files(&bundle, &arguments, environment).trim().to_owned()
    };
    // `ls` has one of its own open.
    assert_eq!(run(&[], &[]), "0 1 2 3");
    assert_eq!(run(&["--preserve-fds", "1"], &[]), "0 1 2 3 4");
    assert_eq!(run(&["--preserve-fds", "2"], &[]), "0 1 2 3 4 5");
    let refused = run(&["--preserve-fds", "3"], &[]);
    assert!(refused.contains("descriptor 5 is to be passed on"), "{refused}");
    // Sockets that were handed to another process are not this one's.
    assert_eq!(run(&[], &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]), "0 1 2 3");
    assert_eq!(run(&[], &[("LISTEN_FDS", "1")]), "0 1 2 3");
}

#[test]
fn sockets_of_a_service_manager_reach_the_program() {
    let name = "sockets_of_a_service_manager_reach_the_program";
    let Some(bundle) = Bundle::new(name) else { return };
    bundle.script("echo $(ls /proc/self/fd) $LISTEN_FDS $LISTEN_PID");
    let inner = bundle.command(&["run", "-b", &bundle.path(), &bundle.id]);
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3</dev/null";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&output.stdout), "0 1 2 3 4 1 1\n", "{output:?}");
}
