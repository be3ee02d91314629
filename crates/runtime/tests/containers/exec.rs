//! Further processes.

use brig_runtime::ErrorKind;
use brig_runtime::pidfd::Exit;
use serde_json::json;

use crate::support::{Fixture, exec, shell};

#[test]
fn exec_passes_output_and_exit_codes() {
    let Some(mut fixture) = Fixture::new("exec_passes_output_and_exit_codes") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let output =
        exec(&created.container, &shell("echo out; echo err >&2; hostname; exit 7")).unwrap();
    assert_eq!(output.stdout, "out\ntest\n");
    assert_eq!(output.stderr, "err\n");
    assert_eq!(output.exit, Exit::Code(7));
}

#[test]
fn exec_runs_in_the_containers_cgroup() {
    let Some(mut fixture) = Fixture::new("exec_runs_in_the_containers_cgroup") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let output = exec(&created.container, &shell("cat /proc/self/cgroup")).unwrap();
    assert!(output.stdout.lines().all(|line| line.ends_with(":/")), "{output:?}");
}

#[test]
fn exec_of_a_missing_program_is_told() {
    let Some(mut fixture) = Fixture::new("exec_of_a_missing_program_is_told") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let mut process = shell("");
    process["args"] = json!(["no-such"]);
    let error = exec(&created.container, &process).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.chain().contains("executable file not found in $PATH"), "{}", error.chain());
    process["args"] = json!(["true"]);
    process["cwd"] = json!("/no/such");
    let error = exec(&created.container, &process).unwrap_err().chain();
    assert!(error.contains("/no/such") && error.contains("ENOENT"), "{error}");
}

#[test]
fn exec_needs_a_running_container() {
    let Some(mut fixture) = Fixture::new("exec_needs_a_running_container") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    created.container.pause().unwrap();
    let error = exec(&created.container, &shell("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    created.container.resume().unwrap();
    created.container.kill(libc::SIGKILL, brig_runtime::KillScope::Init).unwrap();
    brig_runtime::pidfd::wait_child(std::os::fd::AsFd::as_fd(&created.pidfd)).unwrap();
    let error = exec(&created.container, &shell("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
