//! Standard streams: the log, attached clients, input and terminals.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use brig_shim_protocol::attach::AttachRequest;
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::types::Empty;

use crate::support::{
    Setup, Shim, close_input, eventually, joined, log_entries, read_frames, read_until, skip,
};

#[test]
fn a_hundred_thousand_lines_are_logged_exactly() {
    if skip("a_hundred_thousand_lines_are_logged_exactly") {
        return;
    }
    let shim = Shim::create(Setup::script("seq 100000; seq 1000 >&2; printf end").log(0, 1, false));
    shim.start();
    assert_eq!(shim.wait(""), 0);
    let entries = log_entries(&shim.log_path());
    let mut expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    expected.push_str("end");
    assert!(joined(&entries, "stdout") == expected);
    assert_eq!(joined(&entries, "stderr").lines().count(), 1000);
    assert_eq!(entries.len(), 101_001);
    shim.end();
}

#[test]
fn rotated_and_compressed_logs_keep_every_line() {
    if skip("rotated_and_compressed_logs_keep_every_line") {
        return;
    }
    let shim = Shim::create(Setup::script("seq 50000").log(256 << 10, 90, true));
    shim.start();
    shim.wait("");
    let packed = |number: u32| {
        std::path::PathBuf::from(format!("{}.{number}.gz", shim.log_path().display()))
    };
    // Compression goes on behind the container's back.
    eventually("all rotated files are compressed", || {
        let names: Vec<_> = std::fs::read_dir(shim.directory.path())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with("log.json."))
            .collect();
        names.len() > 10 && names.iter().all(|name| name.ends_with(".gz"))
    });
    assert!(packed(1).exists());
    let entries = log_entries(&shim.log_path());
    let expected: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    assert!(joined(&entries, "stdout") == expected);
    shim.end();
}

#[test]
fn a_client_that_never_reads_is_dropped_and_slows_nobody() {
    if skip("a_client_that_never_reads_is_dropped_and_slows_nobody") {
        return;
    }
    let shim = Shim::create(Setup::script("seq 300000").log(0, 1, false));
    // The silent one attaches first.
    let mut silent = shim.attach("");
    let readers = [shim.attach(""), shim.attach("")].map(|mut client| {
        client.set_read_timeout(Some(crate::support::TIMEOUT)).unwrap();
        std::thread::spawn(move || read_frames(&mut client))
    });
    shim.start();
    assert_eq!(shim.wait(""), 0);
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert!(joined(&log_entries(&shim.log_path()), "stdout") == expected);
    for reader in readers {
        let [stdout, _, system] = reader.join().unwrap();
        // A reader may be slow enough on a busy machine to be dropped too, but then it is told.
        let complete = stdout == expected.as_bytes();
        assert!(complete || (!system.is_empty() && expected.as_bytes().starts_with(&stdout)));
    }
    let [stdout, _, system] = read_frames(&mut silent);
    assert!(expected.as_bytes().starts_with(&stdout) && stdout.len() < expected.len());
    assert!(String::from_utf8(system).unwrap().contains("detached"));
    shim.end();
}

#[test]
fn a_lossless_client_gets_everything_however_slow_it_is() {
    if skip("a_lossless_client_gets_everything_however_slow_it_is") {
        return;
    }
    let shim = Shim::create(Setup::script("seq 300000"));
    let mut client = shim.attach_with(&AttachRequest {
        stdout: true,
        stderr: true,
        lossless: true,
        ..Default::default()
    });
    shim.start();
    // The process cannot end before its output is taken: it waits in a write, as on any pipe.
    let state = shim.state("");
    assert_eq!(state.exit_status, 0);
    let [stdout, _, system] = read_frames(&mut client);
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert!(stdout == expected.as_bytes() && system.is_empty());
    assert_eq!(shim.wait(""), 0);
    shim.end();
}

#[test]
fn input_arrives_and_its_half_close_ends_it_once() {
    if skip("input_arrives_and_its_half_close_ends_it_once") {
        return;
    }
    let shim = Shim::create(Setup::script("wc -c; echo over").stdin(true));
    let mut client = shim.attach("");
    // More than pipes and buffers hold, before anybody reads.
    let mut writer = client.try_clone().unwrap();
    let input = std::thread::spawn(move || {
        writer.write_all(&vec![b'x'; 3_000_000]).unwrap();
        close_input(&mut writer);
    });
    shim.start();
    let [stdout, _, _] = read_frames(&mut client);
    input.join().unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), "3000000\nover\n");
    assert_eq!(shim.wait(""), 0);
    shim.end();
}

#[test]
fn input_that_is_not_once_outlives_its_clients() {
    if skip("input_that_is_not_once_outlives_its_clients") {
        return;
    }
    let script = "while read line; do echo got $line; test $line = last && exit 4; done";
    let shim = Shim::create(Setup::script(script).stdin(false));
    shim.start();
    let mut first = shim.attach("");
    first.write_all(b"one\n").unwrap();
    read_until(&mut first, "got one\n");
    drop(first);
    let mut second = shim.attach("");
    second.write_all(b"last\n").unwrap();
    close_input(&mut second);
    let [stdout, _, _] = read_frames(&mut second);
    assert_eq!(stdout, b"got last\n");
    assert_eq!(shim.wait(""), 4);
    shim.end();
}

#[test]
fn without_open_stdin_the_process_reads_the_end() {
    if skip("without_open_stdin_the_process_reads_the_end") {
        return;
    }
    let shim = Shim::create(Setup::script("cat; echo done"));
    let mut client = shim.attach("");
    client.write_all(b"ignored\n").unwrap();
    shim.start();
    let [stdout, _, _] = read_frames(&mut client);
    assert_eq!(stdout, b"done\n");
    shim.wait("");
    shim.end();
}

#[test]
fn close_io_ends_input() {
    if skip("close_io_ends_input") {
        return;
    }
    let shim = Shim::create(Setup::script("cat; exit 6").stdin(false));
    let mut client = shim.attach("");
    shim.start();
    client.write_all(b"text\n").unwrap();
    read_until(&mut client, "text\n");
    let request = task::CloseIORequest { id: shim.id.clone(), exec_id: String::new(), stdin: true };
    let _: Empty = shim.client().call(method::CLOSE_IO, &request).unwrap();
    assert_eq!(shim.wait(""), 6);
    shim.end();
}

fn resize(shim: &Shim, exec_id: &str, width: u32, height: u32) {
    let request =
        task::ResizePtyRequest { id: shim.id.clone(), exec_id: exec_id.to_owned(), width, height };
    let _: Empty = shim.client().call(method::RESIZE_PTY, &request).unwrap();
}

#[test]
fn a_terminal_is_raw_and_can_be_resized() {
    if skip("a_terminal_is_raw_and_can_be_resized") {
        return;
    }
    let script = "trap 'stty size' WINCH; tty; echo ready; read line; echo \"got $line\"; exit 9";
    let shim = Shim::create(Setup::script(script).terminal().stdin(true).log(0, 1, false));
    let mut client = shim.attach("");
    resize(&shim, "", 101, 31);
    shim.start();
    let seen = read_until(&mut client, "ready\r\n");
    assert!(seen.contains("/dev/pts/0") || seen.contains("/dev/console"), "{seen:?}");
    client.write_all(b"hello\r").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("got hello\r\n"), "{rest:?}");
    assert_eq!(shim.wait(""), 9);
    assert!(joined(&log_entries(&shim.log_path()), "stdout").contains("got hello\r\n"));
    shim.end();
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    if skip("an_exec_has_a_terminal_of_its_own") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    shim.exec("shell", "echo ready; read line; stty size; exit 3", true, true);
    let mut client = shim.attach("shell");
    shim.start_process("shell").unwrap();
    read_until(&mut client, "ready\r\n");
    resize(&shim, "shell", 77, 22);
    client.write_all(b"\r").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("22 77"), "{rest:?}");
    assert_eq!(shim.wait("shell"), 3);
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn clients_may_attach_and_leave_at_any_time() {
    if skip("clients_may_attach_and_leave_at_any_time") {
        return;
    }
    let shim = Shim::create(Setup::script("while true; do echo line; done").log(1 << 20, 2, false));
    shim.start();
    for _ in 0..200 {
        let mut client: UnixStream = shim.attach("");
        let mut bytes = [0; 100];
        client.read_exact(&mut bytes).unwrap();
    }
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", shim.pid)).unwrap().count();
    eventually("the shim forgets its clients", || descriptors() < 30);
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}
