//! A bundle of busybox that `brig-runtime` is driven with, as another engine drives it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::engine::{Outcome, eventually};
use tempfile::TempDir;

use crate::guest::run;

/// The user and group of containers without root.
pub(crate) const USER: u32 = 1000;

/// A container of the bundle, by the name that it is made with. Dropping it removes the container.
pub(crate) struct Bundle {
    directory: TempDir,
    id: String,
    /// The words before the runtime's own: who calls it.
    caller: Vec<String>,
    /// Switches of the runtime before its command.
    switches: Vec<String>,
}

impl Bundle {
    /// A container that executes `arguments` in the cgroup `cgroups_path`, limited to 32 MiB and 16 processes.
    pub(crate) fn new(id: &str, switches: &[&str], cgroups_path: &str, arguments: &[&str]) -> Self {
        let mut specification = configuration(arguments);
        specification["linux"]["cgroupsPath"] = json!(cgroups_path);
        specification["linux"]["resources"] = limits();
        Self::make(id, &[], switches, &specification)
    }

    /// A container of the guest's user, in a user namespace of which that is root, with limits if `limited`.
    pub(crate) fn rootless(id: &str, switches: &[&str], limited: bool, arguments: &[&str]) -> Self {
        let mut specification = configuration(arguments);
        let linux = &mut specification["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
        if limited {
            linux["resources"] = limits();
        }
        specification["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"
        }));
        let bundle = Self::make(id, &user_words(), switches, &specification);
        let owner = format!("{USER}:{USER}");
        let _ = run(Command::new("chown").args(["-R", &owner]).arg(bundle.path())).success();
        bundle
    }

    fn make(id: &str, caller: &[&str], switches: &[&str], specification: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("rootfs/bin");
        fs::create_dir_all(&programs).unwrap();
        for name in ["cat", "sh", "sleep", "tail"] {
            fs::copy("/bin/busybox", programs.join(name)).unwrap();
        }
        fs::write(directory.path().join("config.json"), specification.to_string()).unwrap();
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self { directory, id: id.to_owned(), caller: owned(caller), switches: owned(switches) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
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
        command
            .args(&self.caller)
            .arg("brig-runtime")
            .args(&self.switches)
            .args(words)
            .arg(&self.id)
            .args(further);
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

/// Makes a caller of the guest's user, as after a log-in.
pub(crate) fn user_words() -> [&'static str; 9] {
    [
        "setpriv",
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--clear-groups",
        "env",
        "XDG_RUNTIME_DIR=/run/user/1000",
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus",
    ]
}

fn limits() -> Value {
    json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 16}})
}

fn configuration(arguments: &[&str]) -> Value {
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
            "namespaces": namespaces
        }
    })
}
