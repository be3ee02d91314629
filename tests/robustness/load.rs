//! Many at once: containers, execs, log lines, and clients that never read (L1, L3, L4, L5).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::api;
use support::engine::Setup;

use crate::lab::{Lab, VICTIM};
use crate::soak;

#[test]
fn workers_that_create_start_exec_and_remove_meet_no_error() {
    let Some(lab) = Lab::start("workers", Setup::default()) else { return };
    let (workers, rounds) = if soak() { (64, 50) } else { (8, 3) };
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (lab, done) = (&lab, &done);
            scope.spawn(move || {
                let name = format!("worker-{worker}");
                for _ in 0..rounds {
                    lab.create(&name, VICTIM, &json!({}));
                    lab.must("POST", &format!("/containers/{name}/start"), "");
                    let (output, code) = exec(lab, &name, "echo hello; exit 5");
                    assert_eq!((output.as_slice(), code), (&b"hello\n"[..], 5));
                    lab.must("DELETE", &format!("/containers/{name}?force=1"), "");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), workers * rounds);
    lab.check_bystander("workers");
    lab.check_consistency("workers");
}

#[test]
fn two_hundred_execs_at_once_give_every_byte_and_every_code() {
    let Some(lab) = Lab::start("execs", Setup::default()) else { return };
    lab.create("busy", VICTIM, &json!({ "NetworkMode": "none" }));
    lab.must("POST", "/containers/busy/start", "");
    let rounds = if soak() { 20 } else { 2 };
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for number in 0..200_usize {
                let lab = &lab;
                scope.spawn(move || {
                    let bytes = 1000 + number * 37;
                    let script =
                        format!("head -c {bytes} /dev/zero | tr '\\0' x; exit {}", number % 120);
                    let (output, code) = exec(lab, "busy", &script);
                    let case = format!("exec {number} of round {round}");
                    assert_eq!(output.len(), bytes, "{case}");
                    assert!(output.iter().all(|byte| *byte == b'x'), "{case}");
                    assert_eq!(code, i64::try_from(number % 120).unwrap(), "{case}");
                });
            }
        });
    }
    lab.check_bystander("execs");
    lab.must("DELETE", "/containers/busy?force=1", "");
    println!("{} execs, exact bytes and codes", rounds * 200);
}

/// Runs a script in a container: what it wrote to standard output, and its exit code.
fn exec(lab: &Lab, container: &str, script: &str) -> (Vec<u8>, i64) {
    let body = json!({
        "Cmd": ["sh", "-c", script], "AttachStdout": true, "AttachStderr": true,
    });
    let path = format!("/containers/{container}/exec");
    let made = lab.must("POST", &path, &body.to_string()).json();
    let id = made["Id"].as_str().unwrap().to_owned();
    let socket = lab.engine.path("brig.sock");
    let body = json!({ "Detach": false }).to_string();
    let mut reader = api::hijack(&socket, &format!("/exec/{id}/start"), &body).unwrap();
    let mut raw = Vec::new();
    reader.read_to_end(&mut raw).unwrap();
    let state = lab.must("GET", &format!("/exec/{id}/json"), "").json();
    (standard_output(&raw), state["ExitCode"].as_i64().unwrap_or(-1))
}

/// The payloads of stdcopy frames of stream 1.
fn standard_output(mut raw: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    while let Some((header, rest)) = raw.split_at_checked(8) {
        let length = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let (payload, after) = rest.split_at(usize::try_from(length).unwrap());
        if header[0] == 1 {
            output.extend_from_slice(payload);
        }
        raw = after;
    }
    output
}

#[test]
fn no_log_line_is_lost_or_doubled_while_brigd_is_killed_and_logs_rotate() {
    let Some(mut lab) = Lab::start("logs", Setup::default()) else { return };
    let lines = if soak() { 2_000_000 } else { 200_000 };
    let log = json!({ "Type": "json-file", "Config": { "max-size": "1m", "max-file": "1000" } });
    let host = json!({ "LogConfig": log, "NetworkMode": "none" });
    let names = ["writer-0", "writer-1", "writer-2", "writer-3"];
    for name in names {
        lab.create(name, &format!("seq 1 {lines}"), &host);
    }
    for name in names {
        lab.must("POST", &format!("/containers/{name}/start"), "");
    }
    lab.engine.crash();
    lab.engine.restart();
    for name in names {
        let code = lab.must("POST", &format!("/containers/{name}/wait"), "").json();
        assert_eq!(code["StatusCode"], 0, "{name}");
        let path = lab.inspect(name).unwrap()["LogPath"].as_str().unwrap().to_owned();
        let mut expected = 1;
        for line in logged(Path::new(&path)) {
            assert_eq!(line.trim(), expected.to_string(), "{name}: lost or doubled");
            expected += 1;
        }
        assert_eq!(expected, lines + 1, "{name}");
        let tail = lab.must("GET", &format!("/containers/{name}/logs?stdout=1&tail=1"), "").body;
        assert!(tail.contains(&lines.to_string()), "{name}: {tail}");
        lab.must("DELETE", &format!("/containers/{name}"), "");
    }
    lab.check_bystander("logs");
    println!("{} lines, none lost, none doubled", lines * 4);
}

/// All that is in a log and what was rotated from it, oldest first.
fn logged(path: &Path) -> Vec<String> {
    let rotated = |number: usize| PathBuf::from(format!("{}.{number}", path.display()));
    let mut files: Vec<PathBuf> = (1..).map(rotated).take_while(|file| file.exists()).collect();
    files.reverse();
    files.push(path.to_owned());
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let entry = |line: &str| -> String {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["log"].as_str().unwrap().to_owned()
    };
    text.lines().map(entry).collect()
}

#[test]
fn clients_that_never_read_cost_little_and_slow_nobody() {
    let Some(lab) = Lab::start("deaf", Setup::default()) else { return };
    let host = json!({ "NetworkMode": "none", "LogConfig": { "Type": "none" } });
    // Waits for its first client, then floods.
    lab.create("loud", "while ! [ -e /go ]; do sleep 0.1; done; seq 1 1000000; echo end", &host);
    lab.must("POST", "/containers/loud/start", "");
    let socket = lab.engine.path("brig.sock");
    let before = memory(&lab);
    let mut deaf = Vec::new();
    for _ in 0..100 {
        let attach = "/containers/loud/attach?stream=1&stdout=1&stderr=1";
        deaf.push(api::hijack(&socket, attach, "").unwrap());
        deaf.push(api::open(&socket, "GET", "/events?since=0", "").unwrap());
    }
    exec(&lab, "loud", "touch /go");
    // It comes to its end, though nobody reads a byte.
    let code = lab.must("POST", "/containers/loud/wait", "").json();
    assert_eq!(code["StatusCode"], 0);
    for _ in 0..5 {
        lab.check_reuse("beside deaf clients", "victim");
    }
    lab.check_bystander("beside deaf clients");
    let after = memory(&lab);
    let grown = after.saturating_sub(before);
    assert!(grown < 64 << 10, "brigd grew by {grown} KiB");
    drop(deaf);
    lab.must("DELETE", "/containers/loud?force=1", "");
    println!("200 clients that never read: brigd grew by {grown} KiB");
}

/// Resident memory of brigd in KiB.
fn memory(lab: &Lab) -> u64 {
    let text =
        std::fs::read_to_string(format!("/proc/{}/status", lab.engine.daemon_pid())).unwrap();
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).collect();
    fields["VmRSS"].split_ascii_whitespace().next().unwrap().parse().unwrap()
}
