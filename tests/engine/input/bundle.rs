//! Malformed `config.json`: refused by the field's path with runc's exit code, in bounded time and memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::cgroups;
use support::engine::{busybox, program};

/// Address space of the program under test, in KiB: several times the largest document that is read.
const MEMORY_KIB: u32 = 1 << 20;

/// A bundle with a good configuration, whose runtime state is in it.
struct Bundle {
    directory: tempfile::TempDir,
    id: String,
}

impl Bundle {
    fn new(test: &str) -> Option<Self> {
        let runtime = program("brig-runtime");
        let reason = match (rustix::process::geteuid().is_root(), busybox()) {
            (true, Some(busybox)) if runtime.is_file() => {
                let directory = tempfile::Builder::new().prefix("brig-input-").tempdir().unwrap();
                let root = directory.path().join("rootfs");
                for name in ["bin", "dev", "proc", "sys"] {
                    fs::create_dir_all(root.join(name)).unwrap();
                }
                fs::copy(busybox, root.join("bin/true")).unwrap();
                return Some(Self { directory, id: format!("brig-input-{}", std::process::id()) });
            }
            (false, _) => "needs root".to_owned(),
            (_, None) => "busybox-static is not installed".to_owned(),
            _ => format!("{} is not built: use cargo xtask test", runtime.display()),
        };
        eprintln!("SKIPPED {test}: {reason}");
        None
    }

    fn good(&self) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }],
            },
        })
    }

    /// Runs a configuration; `None` leaves the file out. The exit code and the error.
    fn run(&self, configuration: Option<&[u8]>) -> (Option<i32>, String) {
        let file = self.directory.path().join("config.json");
        let _ = fs::remove_file(&file);
        if let Some(bytes) = configuration {
            fs::write(&file, bytes).unwrap();
        }
        let script = format!("ulimit -v {MEMORY_KIB}; exec \"$@\"");
        let output = Command::new("timeout")
            .args(["--kill-after=5", "60", "sh", "-c", &script, "sh"])
            .arg(program("brig-runtime"))
            .arg("--root")
            .arg(self.directory.path().join("state"))
            .args(["run", "--bundle"])
            .arg(self.directory.path())
            .arg(&self.id)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Neither state nor a cgroup is there.
    fn check_nothing_left(&self, case: &str) {
        let state = self.directory.path().join("state");
        let entries = fs::read_dir(&state).into_iter().flatten().flatten();
        let left: Vec<_> = entries.map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{case}: {left:?}");
        assert_eq!(cgroups::present(&self.id), Vec::<std::path::PathBuf>::new(), "{case}");
    }
}

/// Sets the field at a JSON pointer, whose parents are there.
fn with(mut configuration: Value, pointer: &str, value: Value) -> Vec<u8> {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    configuration.pointer_mut(parent).unwrap()[field] = value;
    configuration.to_string().into_bytes()
}

#[test]
fn malformed_configurations_are_refused_by_the_path_of_the_field() {
    let Some(bundle) = Bundle::new("malformed-config") else { return };
    let good = || bundle.good();
    assert_eq!(bundle.run(Some(good().to_string().as_bytes())), (Some(0), String::new()));
    let text = good().to_string();
    let twice = text.replacen('{', "{\"process\":null,", 1).into_bytes();
    let many = |count: usize| -> Value { vec![json!({ "destination": "/m" }); count].into() };
    let file = bundle.directory.path().join("config.json").display().to_string();
    let cases: Vec<(&str, Option<Vec<u8>>, Vec<&str>)> = vec![
        ("missing", None, vec![&file, "No such file"]),
        ("empty", Some(Vec::new()), vec![&file, "EOF"]),
        ("cut off", Some(text.as_bytes()[..text.len() / 2].to_vec()), vec![&file, "EOF"]),
        ("no JSON", Some(b"ociVersion: 1.2.0".to_vec()), vec![&file, "line 1 column"]),
        ("binary", Some(vec![0xff; 4096]), vec![&file, "line 1 column"]),
        ("another type", Some(b"[]".to_vec()), vec!["ociVersion"]),
        ("twice", Some(twice), vec!["process", "duplicate field"]),
        ("deep", Some(vec![b'['; 1 << 20]), vec![&file]),
        ("version", Some(with(good(), "/ociVersion", json!(7))), vec!["ociVersion", "integer `7`"]),
        ("old", Some(with(good(), "/ociVersion", json!("0.1"))), vec!["ociVersion", "0.1"]),
        (
            "arguments",
            Some(with(good(), "/process/args", json!("/bin/true"))),
            vec!["parse process.args", "expected a sequence"],
        ),
        ("no arguments", Some(with(good(), "/process/args", json!([]))), vec!["process.args"]),
        ("user", Some(with(good(), "/process/user/uid", json!(-1))), vec!["process.user.uid"]),
        (
            "zero byte",
            Some(with(good(), "/process/args", json!(["/bin/true", "a\0b"]))),
            vec!["process.args", "zero byte"],
        ),
        (
            "zero byte in the environment",
            Some(with(good(), "/process/env", json!(["A=\0"]))),
            vec!["process.env", "zero byte"],
        ),
        (
            "working directory",
            Some(with(good(), "/process/cwd", json!("etc"))),
            vec!["process.cwd"],
        ),
        (
            "hook",
            Some(with(good(), "/hooks", json!({ "poststop": [{ "path": "true" }] }))),
            vec!["hooks", "poststop", "absolute"],
        ),
        (
            "namespace",
            Some(with(good(), "/linux/namespaces", json!([{ "type": "pid" }, { "type": "moon" }]))),
            vec!["linux.namespaces[1].type", "moon"],
        ),
        (
            "namespace twice",
            Some(with(
                good(),
                "/linux/namespaces",
                json!([{ "type": "pid" }, { "type": "mount" }, { "type": "pid" }]),
            )),
            vec!["linux.namespaces", "twice"],
        ),
        (
            "namespace's path",
            Some(with(
                good(),
                "/linux/namespaces",
                json!([{ "type": "pid", "path": "x" }, { "type": "mount" }]),
            )),
            vec!["linux.namespaces", "absolute"],
        ),
        ("mount", Some(with(good(), "/mounts", json!([{ "type": "proc" }]))), vec!["mounts[0]"]),
        ("100000 mounts", Some(with(good(), "/mounts", many(100_000))), vec!["mounts has 100000"]),
        ("a million mounts", Some(with(good(), "/mounts", many(1_000_000))), vec![&file, "larger"]),
        ("no root", Some(with(good(), "/root", Value::Null)), vec!["root is missing"]),
        ("root", Some(with(good(), "/root/path", json!("nosuch"))), vec!["nosuch"]),
        ("no linux", Some(with(good(), "/linux", Value::Null)), vec!["linux is missing"]),
        (
            "kernel parameter",
            Some(with(good(), "/linux/sysctl", json!({ "kernel.panic": "1" }))),
            vec!["linux.sysctl", "kernel.panic"],
        ),
    ];
    for (case, configuration, words) in cases {
        let (code, error) = bundle.run(configuration.as_deref());
        assert_eq!(code, Some(1), "{case}: {error}");
        let missing: Vec<_> = words.iter().filter(|word| !error.contains(**word)).collect();
        assert!(missing.is_empty(), "{case} does not say {missing:?}: {error}");
        assert!(error.len() < 1000, "{case}: {error}");
        bundle.check_nothing_left(case);
    }
    // The same bundle is as good as before.
    let (code, error) = bundle.run(Some(text.as_bytes()));
    assert_eq!((code, Path::new(&file).exists()), (Some(0), true), "{error}");
}
