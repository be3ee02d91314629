//! Log drivers: where output goes, and what `logs` makes of it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are tests, and one that cannot run says so"
)]

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
}

/// journald by itself, in a mount namespace of its own: its sockets and files are in the directory. Ends when dropped.
struct Journald {
    directory: tempfile::TempDir,
    process: std::process::Child,
}

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const RUN_JOURNALD: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
                            mkdir -p /run/systemd/journal /run/log/journal && \
                            mount --bind \"$0/sockets\" /run/systemd/journal && \
                            mount --bind \"$0/files\" /run/log/journal && exec \"$@\"";

impl Journald {
    fn start(test: &str) -> Option<Self> {
        let missing = |path: &&str| !std::path::Path::new(path).exists();
        if let Some(path) = [JOURNALD, "/etc/machine-id"].iter().find(|path| missing(path)) {
            eprintln!("SKIPPED {test}: there is no {path}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["sockets", "files"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", RUN_JOURNALD]).arg(directory.path()).arg(JOURNALD);
        let process = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut journald = Self { directory, process };
        let socket = journald.directory.path().join("sockets/socket");
        eventually("journald's socket", || {
            assert!(journald.process.try_wait().unwrap().is_none(), "journald ended");
            socket.exists().then_some(())
        });
        Some(journald)
    }

    /// Puts brigd, the shims and the reader where they find it.
    fn wrapper(&self) -> Vec<String> {
        let path = self.directory.path().to_str().unwrap();
        ["sh", "-c", RUN_JOURNALD, path].map(str::to_owned).to_vec()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_journal_is_read_back() {
    let Some(journald) = Journald::start("a_journal_is_read_back") else { return };
    let setup = Setup { wrapper: journald.wrapper(), ..Setup::default() };
    let Some(mut engine) = Engine::start_as("journal-read", setup) else { return };
    engine.load_busybox();
    let run = ["run", "--log-driver", "journald", "--name"];
    let script =
        "echo out; head -c 20000 /dev/zero | tr '\\0' x; echo; printf 'a\\001b\\n'; echo end";
    let told = engine.docker(&[&run[..], &["told", "busybox", "sh", "-c", script]].concat());
    let whole = told.stdout.clone();
    let _ = told.success();
    let script = "echo another\\'s; echo bad >&2";
    let _ = engine.docker(&[&run[..], &["other", "busybox", "sh", "-c", script]].concat());
    let logs = engine.docker(&["logs", "told"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), (whole.as_str(), ""));
    assert!(logs.stdout.ends_with(&format!("{}\na\u{1}b\nend\n", "x".repeat(20_000))));
    let part = |flags: &[&str]| {
        let logs = engine.brig(&[&["logs"], flags, &["told"]].concat());
        logs.stdout.clone() + &logs.stderr
    };
    assert_eq!(part(&["--tail", "2"]), "a\u{1}b\nend\n");
    assert_eq!(part(&["--tail", "0"]), "");
    assert_eq!(part(&["--since", "1h"]), whole);
    assert_eq!(part(&["--until", "1h"]), "", "all is newer");
    let stamped = part(&["--timestamps", "--tail", "1"]);
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), text), ("2026-01-02T03:04:05.000000006Z".len(), "end\n"));
    // Output that was read at once has one time, so only the ends of the log tell for certain.
    let stamped = engine.brig(&["logs", "--timestamps", "told"]).stdout;
    let (first, _) = stamped.split_once(' ').unwrap();
    assert_eq!(engine.brig(&["logs", "--since", first, "told"]).stdout, whole);
    assert_eq!(part(&["--since", "2100-01-01T00:00:00Z"]), "");
    // Followed, also over the end of the first lines, until the container ends; and from now on only.
    let slow = "for line in $(seq 100); do echo $line; sleep 0.02; done";
    let _ =
        engine.docker(&[&run[..], &["slow", "-d", "busybox", "sh", "-c", slow]].concat()).success();
    let expected: String = (1..=100).map(|line| format!("{line}\n")).collect();
    assert_eq!(engine.docker(&["logs", "-f", "slow"]).stdout, expected);
    // The journal is not the engine's: another one reads it as well.
    engine.crash();
    engine.restart();
    assert_eq!(engine.brig(&["logs", "slow"]).stdout, expected);
    let other = engine.docker(&["logs", "other"]);
    assert_eq!((&*other.stdout, &*other.stderr), ("another's\n", "bad\n"));
}

#[test]
fn a_journal_without_its_reader_is_said_to_be_so() {
    let wrapper = ["env", "PATH=/nowhere"].map(str::to_owned).to_vec();
    let setup = Setup { wrapper, ..Setup::default() };
    let Some(engine) = Engine::start_as("journal-none", setup) else { return };
    engine.load_busybox();
    let create = ["create", "--name", "mute", "--log-driver", "journald", "busybox", "true"];
    let _ = engine.docker(&create).success();
    let logs = engine.docker(&["logs", "mute"]);
    assert!(logs.stderr.contains("no journalctl on this machine"), "{}", logs.stderr);
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
