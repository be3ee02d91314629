//! The program itself, as engines and people call it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]
#![expect(clippy::print_stderr, reason = "what is skipped is said")]

mod bundle;
mod checkpoint;
mod compare;
mod events;
mod mounts;
mod notify;
mod passed_on;
mod rootless;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use bundle::{Bundle, PROGRAM};

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
    assert_eq!(call(&["frobnicate"]).status.code(), Some(3));
    for (arguments, words) in [
        (&["state"][..], "container id is missing"),
        (&["state", "a/b"], "invalid container id"),
        (&["start", "--nope", "x"], "--nope"),
        (&["kill", "x", "NOPE"], "unknown signal"),
    ] {
        let output = call(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
}
