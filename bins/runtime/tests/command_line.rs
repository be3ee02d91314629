//! The program itself, as engines and people call it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]
#![expect(clippy::print_stderr, reason = "what is skipped is said")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_brig-runtime");
const BUSYBOX: &str = "/bin/busybox";

struct Bundle {
    directory: PathBuf,
    id: String,
}

impl Bundle {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("SKIPPED {test}: needs root and /bin/busybox (Debian's busybox-static)");
            return None;
        }
        let id = format!("brig-cli-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&id);
        for name in ["bin", "dev", "proc", "sys"] {
            std::fs::create_dir_all(directory.join("rootfs").join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, directory.join("rootfs/bin/busybox")).unwrap();
        for name in ["sh", "sleep", "cat", "env", "ls"] {
            let link = directory.join("rootfs/bin").join(name);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        let bundle = Self { directory, id };
        assert!(bundle.call(&["spec", "-b", &bundle.path()]).status.success());
        bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
        });
        Some(bundle)
    }

    fn path(&self) -> String {
        self.directory.display().to_string()
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.directory.join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    fn script(&self, script: &str) {
        self.edit(|config| config["process"]["args"] = json!(["sh", "-c", script]));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.directory.join("state")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run(&self) -> Output {
        self.call(&["run", "-b", &self.path(), &self.id])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.call(&["delete", "-f", &self.id]);
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn run_passes_output_and_exit_code() {
    let Some(bundle) = Bundle::new("run_passes_output_and_exit_code") else { return };
    bundle.script("echo hello; exit 42");
    let output = bundle.run();
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("hello\n", Some(42)));
    let output = bundle.call(&["state", &bundle.id]);
    assert!(text(&output.stderr).contains("does not exist"), "{output:?}");
}

#[test]
fn commands_work_from_separate_processes() {
    let Some(bundle) = Bundle::new("commands_work_from_separate_processes") else { return };
    bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let id = bundle.id.as_str();
    let quiet = |arguments: &[&str]| {
        let status = bundle.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    quiet(&["create", "-b", &bundle.path(), id]);
    let state =
        || -> Value { serde_json::from_slice(&bundle.call(&["state", id]).stdout).unwrap() };
    assert_eq!(state()["status"], "created");
    quiet(&["start", id]);
    assert_eq!(state()["status"], "running");
    let output = bundle.call(&["exec", id, "sh", "-c", "echo in; exit 3"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("in\n", Some(3)));
    assert_eq!(bundle.call(&["exec", id, "no-such"]).status.code(), Some(255));
    quiet(&["pause", id]);
    assert_eq!(state()["status"], "paused");
    quiet(&["resume", id]);
    assert!(text(&bundle.call(&["list"]).stdout).contains("running"));
    assert_eq!(text(&bundle.call(&["list", "-q"]).stdout), format!("{id}\n"));
    let events: Value =
        serde_json::from_slice(&bundle.call(&["events", "--stats", id]).stdout).unwrap();
    assert_eq!(events["type"], "stats");
    assert!(!bundle.call(&["delete", id]).status.success(), "it runs");
    quiet(&["kill", id, "KILL"]);
    quiet(&["delete", "--force", id]);
    quiet(&["delete", "--force", id]);
    assert!(!bundle.call(&["delete", id]).status.success(), "it is gone");
}

#[test]
fn errors_reach_the_log_as_engines_read_it() {
    let Some(bundle) = Bundle::new("errors_reach_the_log_as_engines_read_it") else { return };
    bundle.edit(|config| config["process"]["args"] = json!(["no-such"]));
    let log = bundle.directory.join("log.json");
    let mut command = Command::new(PROGRAM);
    command.arg("--root").arg(bundle.directory.join("state")).arg("--log").arg(&log);
    command.args(["--log-format", "json", "create", "-b", &bundle.path(), &bundle.id]);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    let lines = std::fs::read_to_string(log).unwrap();
    let line: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("executable file not found in $PATH"));
}

/// CVE-2019-5736: whoever gets hold of the program's link cannot write to the file, not even the host's root. (While
/// it runs, any other program answers "text file busy" here, and lets itself be overwritten as soon as it has ended.)
#[test]
fn the_programs_link_cannot_be_written() {
    let Some(bundle) = Bundle::new("the_programs_link_cannot_be_written") else { return };
    bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let mut command = bundle.command(&["run", "-b", &bundle.path(), &bundle.id]);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !text(&bundle.call(&["state", &bundle.id]).stdout).contains("running") {
        assert!(running.try_wait().unwrap().is_none(), "it ended");
    }
    let link = format!("/proc/{}/exe", running.id());
    let error = std::fs::File::options().write(true).truncate(true).open(link).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    bundle.call(&["kill", &bundle.id, "KILL"]);
    assert_eq!(running.wait().unwrap().code(), Some(137));
}

#[test]
fn help_and_mistakes_are_answered() {
    let call = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(text(&call(&["--help"]).stdout).contains("create"));
    assert!(text(&call(&["--version"]).stdout).contains("spec: 1."));
    assert!(call(&["features"]).status.success());
    for (arguments, words) in [
        (&["frobnicate"][..], "unknown command"),
        (&["state"], "container id is missing"),
        (&["state", "a/b"], "invalid container id"),
        (&["start", "--nope", "x"], "--nope"),
        (&["kill", "x", "NOPE"], "unknown signal"),
    ] {
        let output = call(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
}
