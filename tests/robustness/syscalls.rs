//! SIGKILL at a system call (F1) of everything that the shim is: the starter, the shim, the children that run the runtime,
//! init while it is set up, and `delete`.
//!
//! Each of these has one thread, so `strace -e inject=all:signal=SIGKILL:when=N` kills each at its own Nth call. A sample of
//! all N is tried here, every one with `BRIG_TEST_SOAK=1`. What brigd makes of it is asked as after any fault; nothing that
//! was not traced may notice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::engine::{Setup, program};
use tempfile::TempDir;

use crate::lab::{Lab, VICTIM};
use crate::soak;

/// The last call of the sample. Most processes that the shim is made of make fewer.
const LAST: usize = 460;
/// The last call with `BRIG_TEST_SOAK=1`: the shim itself, from its start to its end, makes fewer.
const LAST_OF_ALL: usize = 2000;
/// Between two calls of the sample; prime, so that it does not keep step with any loop.
const STEP: usize = 11;

/// A program in the shim's place that is the shim, under strace while there is something to inject.
pub(crate) struct Injector {
    directory: TempDir,
}

impl Injector {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("brig-inject-").tempdir().unwrap();
        let shim = program("containerd-shim-brig-v1");
        let (real, base) = (shim.display(), directory.path().display());
        let script = format!(
            "#!/bin/sh\ninject=$(cat {base}/inject 2>/dev/null)\n[ -n \"$inject\" ] || exec {real} \"$@\"\n\
             exec strace -D -f -qq -o /dev/null -e trace=all -e signal=none -e \"inject=$inject\" {real} \"$@\"\n"
        );
        let this = Self { directory };
        fs::write(this.program(), script).unwrap();
        fs::set_permissions(this.program(), fs::Permissions::from_mode(0o755)).unwrap();
        this
    }

    /// The shim's own name, by which brigd finds its processes.
    fn program(&self) -> PathBuf {
        self.directory.path().join("containerd-shim-brig-v1")
    }

    /// Puts this in the shim's place.
    pub(crate) fn setup(&self) -> Setup {
        let config = format!("shim = \"{}\"\n", self.program().display());
        Setup { config, ..Setup::default() }
    }

    /// What shims that are started from now on suffer.
    pub(crate) fn inject(&self, what: &str) {
        let file = self.directory.path().join("inject");
        let new = self.directory.path().join("new");
        fs::write(&new, what).unwrap();
        fs::rename(new, file).unwrap();
    }
}

/// strace is there, or the test says why it does not run.
pub(crate) fn has_strace(test: &str) -> bool {
    let present = ["/usr/bin/strace", "/bin/strace"].iter().any(|path| Path::new(path).exists());
    if !present {
        eprintln!("SKIPPED {test}: strace is not installed");
    }
    present
}

#[test]
fn a_shim_killed_at_any_system_call_leaves_nothing_behind() {
    if !has_strace("syscalls") {
        return;
    }
    let injector = Injector::new();
    let Some(lab) = Lab::start("syscalls", injector.setup()) else { return };
    let (step, last) = if soak() { (soak_step(), LAST_OF_ALL) } else { (STEP, LAST) };
    let (mut tried, mut cut_off) = (0, 0);
    for call in (1..=last).step_by(step) {
        let case = format!("SIGKILL at call {call}");
        lab.create("victim", VICTIM, &json!({ "NetworkMode": "none" }));
        injector.inject(&format!("all:signal=SIGKILL:when={call}"));
        let started = lab.try_call("POST", "/containers/victim/start", "").unwrap();
        tried += 1;
        if started.is_success() {
            exec_and_stop(&lab);
        } else {
            cut_off += 1;
            assert!(started.status >= 400, "{case}: {started:?}");
        }
        injector.inject("");
        lab.check_bystander(&case);
        lab.check_reuse(&case, "victim");
        lab.check_consistency(&case);
    }
    assert!(
        cut_off > LAST.div_ceil(step) / 8,
        "only {cut_off} of {tried} kills hit a start: is strace at work?"
    );
    lab.swept(tried, &format!("kills at system calls of the shim ({cut_off} starts cut off)"));
}

/// Every call, unless `BRIG_TEST_SOAK` names another step.
fn soak_step() -> usize {
    let value = std::env::var("BRIG_TEST_SOAK").ok();
    value.and_then(|value| value.parse().ok()).filter(|step| *step > 0).unwrap_or(1)
}

/// Whatever the shim still can; each may fail.
fn exec_and_stop(lab: &Lab) {
    let body = json!({ "Cmd": ["true"] }).to_string();
    if let Ok(made) = lab.try_call("POST", "/containers/victim/exec", &body)
        && let Some(id) = made.json()["Id"].as_str()
    {
        let body = json!({ "Detach": true }).to_string();
        let _any = lab.try_call("POST", &format!("/exec/{id}/start"), &body);
    }
    let _any = lab.try_call("POST", "/containers/victim/stop?t=2", "");
}
