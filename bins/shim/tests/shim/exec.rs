//! Many further processes at once.

use std::io::Write;

use brig_shim_protocol::ttrpc::Code;
use serde_json::json;

use crate::support::{Setup, Shim, close_input, read_frames, skip};

#[test]
fn parallel_execs_have_exact_output_and_codes() {
    if skip("parallel_execs_have_exact_output_and_codes") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let shim = &shim;
            scope.spawn(move || {
                let id = format!("exec-{number}");
                let script = format!("seq {number}; cat >&2; exit {number}");
                shim.exec(&id, &script, false, true);
                let mut client = shim.attach(&id);
                shim.start_process(&id).unwrap();
                client.write_all(format!("input {number}").as_bytes()).unwrap();
                close_input(&mut client);
                let [stdout, stderr, _] = read_frames(&mut client);
                let expected: String = (1..=number).map(|line| format!("{line}\n")).collect();
                assert_eq!(String::from_utf8(stdout).unwrap(), expected);
                assert_eq!(String::from_utf8(stderr).unwrap(), format!("input {number}"));
                assert_eq!(shim.wait(&id), number);
                let deleted = shim.delete(&id).unwrap();
                assert_eq!(deleted.exit_status, number);
            });
        }
    });
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn an_exec_waits_for_a_slow_client_instead_of_losing_output() {
    if skip("an_exec_waits_for_a_slow_client_instead_of_losing_output") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    shim.exec("writer", "seq 400000", false, false);
    let mut client = shim.attach("writer");
    shim.start_process("writer").unwrap();
    // Meanwhile the shim serves others.
    shim.exec("other", "exit 11", false, false);
    shim.start_process("other").unwrap();
    assert_eq!(shim.wait("other"), 11);
    let [stdout, _, _] = read_frames(&mut client);
    assert!(stdout.ends_with(b"400000\n") && stdout.len() == 2_688_895);
    assert_eq!(shim.wait("writer"), 0);
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn an_exec_that_cannot_start_ends_with_the_shells_code() {
    if skip("an_exec_that_cannot_start_ends_with_the_shells_code") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "args": ["/no/such"], "env": [], "cwd": "/",
    });
    shim.exec_process("broken", &process, false, false);
    let mut client = shim.attach("broken");
    let error = shim.start_process("broken").unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
    assert!([126, 127].contains(&shim.wait("broken")));
    assert_eq!(read_frames(&mut client), [const { Vec::<u8>::new() }; 3]);
    let again = shim.start_process("broken").unwrap_err();
    assert_eq!(again.code(), Some(Code::FailedPrecondition));
    shim.delete("broken").unwrap();
    shim.kill("", 9);
    shim.wait("");
    let late = shim.start_process("broken").unwrap_err();
    assert_eq!(late.code(), Some(Code::NotFound));
    shim.end();
}
