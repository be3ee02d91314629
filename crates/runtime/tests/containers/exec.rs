//! Further processes.

use brig_runtime::pidfd::Exit;
use brig_runtime::{ErrorKind, ExecOptions};
use serde_json::json;

use crate::support::{Fixture, exec, pipes, shell};

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

/// The cgroups below a container's own are its to make; here the host's root does, where no controller is needed.
#[test]
fn exec_can_run_in_a_cgroup_below_the_containers() {
    let Some(mut fixture) = Fixture::new("exec_can_run_in_a_cgroup_below_the_containers") else {
        return;
    };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let run = |cgroups: Vec<(Vec<String>, std::path::PathBuf)>| {
        let process = serde_json::from_value(shell("cat /proc/self/cgroup")).unwrap();
        let (stdio, output) = pipes();
        let options = ExecOptions { stdio, cgroups, ..ExecOptions::default() };
        created.container.exec(&process, options).map(|exec| output.collect(&exec.pidfd).stdout)
    };
    let everywhere = vec![(Vec::new(), "inner".into())];
    let error = run(everywhere.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    let placement = created.container.cgroup().unwrap().placement().clone();
    let inner: Vec<_> = placement.directories().map(|(_, path)| path.join("inner")).collect();
    for path in &inner {
        std::fs::create_dir(path).unwrap();
    }
    for (file, value) in [("cpuset.cpus", "0"), ("cpuset.mems", "0")] {
        for path in inner.iter().filter(|path| path.join(file).exists()) {
            std::fs::write(path.join(file), value).unwrap();
        }
    }
    let output = run(everywhere).unwrap();
    assert!(output.lines().all(|line| line.ends_with("/inner")), "{output}");
    if placement.directories().any(|(name, _)| name == "pids") {
        let output = run(vec![(vec!["pids".to_owned()], "/inner".into())]).unwrap();
        let inside: Vec<_> = output.lines().filter(|line| line.ends_with("/inner")).collect();
        assert_eq!(inside.len(), 1, "{output}");
        assert!(inside[0].contains(":pids:"), "{output}");
    }
    let error = run(vec![(Vec::new(), "../x".into())]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
