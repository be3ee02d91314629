//! Log drivers: where output goes, and what `logs` makes of it.

use std::os::unix::net::UnixDatagram;

use support::engine::{Engine, Setup, eventually};

/// Puts the test's directory where journald keeps its socket, for brigd and what it starts.
const WITH_JOURNAL: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
                            mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";

#[test]
fn a_journal_gets_docker_s_fields() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = UnixDatagram::bind(directory.path().join("socket")).unwrap();
    recorder.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let wrapper = ["sh", "-c", WITH_JOURNAL, &path].map(str::to_owned).to_vec();
    let Some(engine) = Engine::start_as("journal", Setup { wrapper, ..Setup::default() }) else {
        return;
    };
    engine.load_busybox();
    let options = [
        "run",
        "--name",
        "told",
        "--log-driver",
        "journald",
        "--log-opt",
        "tag={{.Name}}/x",
        "--log-opt",
        "labels=tier",
        "--label",
        "tier=front",
        "--log-opt",
        "mode=non-blocking",
        "busybox",
        "sh",
        "-c",
        "echo out; echo bad >&2; head -c 20000 /dev/zero | tr '\\0' x",
    ];
    let _ = engine.docker(&options).success();
    let id = engine.inspect("told", "{{.Id}}");
    let mut entries = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while entries.len() < 4 {
        let count = recorder.recv(&mut buffer).unwrap();
        entries.push(String::from_utf8(buffer[..count].to_owned()).unwrap());
    }
    for entry in &entries {
        for field in [
            format!("CONTAINER_ID={}\n", &id[..12]),
            format!("CONTAINER_ID_FULL={id}\n"),
            "CONTAINER_NAME=told\n".into(),
            "CONTAINER_TAG=told/x\n".into(),
            "SYSLOG_IDENTIFIER=told/x\n".into(),
            "IMAGE_NAME=busybox\n".into(),
            "TIER=front\n".into(),
            "SYSLOG_TIMESTAMP=".into(),
        ] {
            assert!(entry.contains(&field), "{field:?} in {entry}");
        }
    }
    let with = |words: &[&str]| {
        entries.iter().filter(|entry| words.iter().all(|word| entry.contains(word))).count()
    };
    assert_eq!(with(&["MESSAGE=out\n", "PRIORITY=6\n"]), 1);
    assert_eq!(with(&["MESSAGE=bad\n", "PRIORITY=3\n"]), 1);
    assert_eq!(with(&["CONTAINER_PARTIAL_MESSAGE=true\n"]), 2, "both pieces lack the newline");
    let logs = engine.docker(&["logs", "told"]);
    assert!(logs.stderr.contains("does not support reading"), "{}", logs.stderr);
}

#[test]
fn options_of_logs_are_honoured_or_refused_by_name() {
    let Some(engine) = Engine::start("log-options") else { return };
    engine.load_busybox();
    for (driver, option, word) in [
        ("syslog", "tag=x", "log driver syslog is not built"),
        ("json-file", "mode=sometimes", "mode"),
        ("json-file", "max-buffer-size=1m", "only supported with mode=non-blocking"),
        ("journald", "max-size=1m", "unknown log opt 'max-size'"),
        ("local", "env-regex=^A", "env-regex is not built"),
    ] {
        let create = ["create", "--log-driver", driver, "--log-opt", option, "busybox", "true"];
        let refused = engine.docker(&create);
        assert!(refused.stderr.contains(word), "{driver} {option}: {}", refused.stderr);
    }
    let run = [
        "run",
        "--name",
        "quick",
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=4m",
        "busybox",
        "seq",
        "5000",
    ];
    let _ = engine.docker(&run).success();
    eventually("the log is whole", || {
        engine.docker(&["logs", "quick"]).success().ends_with("\n5000").then_some(())
    });
    let _ = engine.docker(&["run", "--name", "quiet", "--log-driver", "none", "busybox", "true"]);
    let logs = engine.docker(&["logs", "quiet"]);
    assert!(logs.stderr.contains("does not support reading"), "{}", logs.stderr);
}
