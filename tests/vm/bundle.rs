//! A bundle of busybox that `brig-runtime` is driven with, as another engine drives it.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::engine::{Outcome, eventually};
use tempfile::TempDir;

use crate::guest::run;

/// A container of the bundle, by the name that it is made with. Dropping it removes the container.
pub(crate) struct Bundle {
    directory: TempDir,
    id: String,
    /// Switches of the runtime before its command.
    switches: Vec<String>,
}

impl Bundle {
    /// A container that executes `arguments` in the cgroup `cgroups_path`, limited to 32 MiB and 16 processes.
    pub(crate) fn new(id: &str, switches: &[&str], cgroups_path: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("rootfs/bin");
        fs::create_dir_all(&programs).unwrap();
        for name in ["sh", "sleep", "tail"] {
            fs::copy("/bin/busybox", programs.join(name)).unwrap();
        }
        let spec = configuration(cgroups_path, arguments).to_string();
        fs::write(directory.path().join("config.json"), spec).unwrap();
        let switches = switches.iter().map(ToString::to_string).collect();
        Self { directory, id: id.to_owned(), switches }
    }

    /// Runs a command of the runtime on the container.
    pub(crate) fn runtime(&self, words: &[&str]) -> Outcome {
        self.runtime_with(words, &[])
    }

    /// Runs a command of the runtime, with further arguments behind the container's name. What they say goes through a
    /// file, not a pipe that is read to its end: a detached container keeps the output that it is given.
    fn runtime_with(&self, words: &[&str], further: &[&str]) -> Outcome {
        let script = "log=$1; shift; \"$@\" >\"$log\" 2>&1; code=$?; cat \"$log\"; exit $code";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(self.directory.path().join("log"));
        command.arg("brig-runtime").args(&self.switches).args(words).arg(&self.id).args(further);
        run(command.current_dir(self.directory.path()))
    }

    /// What `state` says.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.runtime(&["state"]).success()).unwrap()
    }

    /// The first process of the running container.
    pub(crate) fn pid(&self) -> u32 {
        let state = self.state();
        assert_eq!(state["status"], "running");
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// Ends it by a signal and removes it.
    pub(crate) fn end(&self) {
        let _ = self.runtime_with(&["kill"], &["KILL"]).success();
        eventually("the end of the container", || {
            (self.state()["status"] == "stopped").then_some(())
        });
        let _ = self.runtime(&["delete"]).success();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force"]);
    }
}

fn configuration(cgroups_path: &str, arguments: &[&str]) -> Value {
    let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "network", "cgroup"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"]
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroups_path,
            "resources": {"memory": {"limit": 33_554_432}, "pids": {"limit": 16}}
        }
    })
}
