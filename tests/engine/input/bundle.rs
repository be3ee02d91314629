//! Malformed `config.json`: refused by the field's path with runc's exit code, in bounded time and memory.

use std::fs;
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
fn with(configuration: &Value, pointer: &str, value: Value) -> Vec<u8> {
    let mut configuration = configuration.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    configuration.pointer_mut(parent).unwrap()[field] = value;
    configuration.to_string().into_bytes()
}

/// A name, a configuration (none leaves the file out), and words of the refusal.
type Case = (&'static str, Option<Vec<u8>>, &'static [&'static str]);

/// Documents that are no configuration.
fn broken_documents(good: &Value) -> Vec<Case> {
    let text = good.to_string();
    let twice = text.replacen('{', "{\"process\":null,", 1).into_bytes();
    let mounts =
        |count: usize| with(good, "/mounts", vec![json!({ "destination": "/m" }); count].into());
    vec![
        ("missing", None, &["config.json", "No such file"]),
        ("empty", Some(Vec::new()), &["config.json", "EOF"]),
        ("cut off", Some(text.as_bytes()[..text.len() / 2].to_vec()), &["config.json", "EOF"]),
        ("no JSON", Some(b"ociVersion: 1.2.0".to_vec()), &["config.json", "line 1 column"]),
        ("binary", Some(vec![0xff; 4096]), &["config.json", "line 1 column"]),
        ("another type", Some(b"[]".to_vec()), &["ociVersion"]),
        ("twice", Some(twice), &["process", "duplicate field"]),
        ("deep", Some(vec![b'['; 1 << 20]), &["config.json"]),
        ("100000 mounts", Some(mounts(100_000)), &["mounts has 100000"]),
        ("a million mounts", Some(mounts(1_000_000)), &["config.json", "larger"]),
    ]
}

/// Configurations in which one field is wrong.
fn wrong_fields(good: &Value) -> Vec<Case> {
    let set = |pointer: &str, value: Value| Some(with(good, pointer, value));
    let namespaces = |list: Value| set("/linux/namespaces", list);
    let hook = json!({ "poststop": [{ "path": "true" }] });
    vec![
        ("version", set("/ociVersion", json!(7)), &["parse ociVersion", "integer `7`"]),
        ("old", set("/ociVersion", json!("0.1")), &["ociVersion", "0.1"]),
        ("arguments", set("/process/args", json!("x")), &["parse process.args", "a sequence"]),
        ("no arguments", set("/process/args", json!([])), &["process.args"]),
        ("user", set("/process/user/uid", json!(-1)), &["process.user.uid"]),
        ("zero byte", set("/process/args", json!(["a\0b"])), &["process.args", "zero byte"]),
        ("variable", set("/process/env", json!(["A=\0"])), &["process.env", "zero byte"]),
        ("working directory", set("/process/cwd", json!("etc")), &["process.cwd", "absolute"]),
        ("hook", set("/hooks", hook), &["hooks", "poststop", "absolute"]),
        (
            "namespace",
            namespaces(json!([{ "type": "pid" }, { "type": "moon" }])),
            &["linux.namespaces[1].type", "moon"],
        ),
        (
            "namespace twice",
            namespaces(json!([{ "type": "pid" }, { "type": "mount" }, { "type": "pid" }])),
            &["linux.namespaces", "twice"],
        ),
        (
            "namespace's path",
            namespaces(json!([{ "type": "pid", "path": "x" }, { "type": "mount" }])),
            &["linux.namespaces", "absolute"],
        ),
        ("mount", set("/mounts", json!([{ "type": "proc" }])), &["mounts[0]"]),
        ("no root", set("/root", Value::Null), &["root is missing"]),
        ("root", set("/root/path", json!("nosuch")), &["nosuch"]),
        ("no linux", set("/linux", Value::Null), &["linux is missing"]),
        (
            "kernel parameter",
            set("/linux/sysctl", json!({ "kernel.panic": "1" })),
            &["linux.sysctl", "kernel.panic"],
        ),
    ]
}

#[test]
fn malformed_configurations_are_refused_by_the_path_of_the_field() {
    let Some(bundle) = Bundle::new("malformed-config") else { return };
    let good = bundle.good();
    let text = good.to_string();
    assert_eq!(bundle.run(Some(text.as_bytes())), (Some(0), String::new()));
    for (case, configuration, words) in
        broken_documents(&good).into_iter().chain(wrong_fields(&good))
    {
        let (code, error) = bundle.run(configuration.as_deref());
        assert_eq!(code, Some(1), "{case}: {error}");
        let missing: Vec<_> = words.iter().filter(|word| !error.contains(**word)).collect();
        assert!(missing.is_empty(), "{case} does not say {missing:?}: {error}");
        assert!(error.len() < 1000, "{case}: {error}");
        bundle.check_nothing_left(case);
    }
    // The same bundle is as good as before.
    assert_eq!(bundle.run(Some(text.as_bytes())), (Some(0), String::new()));
}
