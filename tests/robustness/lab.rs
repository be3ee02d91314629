//! An engine with a container that must never notice anything, and the questions asked after each fault.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::engine::{Answer, Engine, Setup};

/// Whether a process runs: neither gone nor waiting to be reaped.
pub(crate) fn is_alive(pid: i64) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// How long anything may take to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the container of most cases runs: it ends at once and with a code of its own when asked to stop.
pub(crate) const VICTIM: &str = "trap 'exit 7' TERM; sleep 100000 & wait";

/// An engine, and a bystander in it.
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    bystander_pid: i64,
    ticks: PathBuf,
}

impl Lab {
    /// Starts an engine with the image and the bystander. `None` when that cannot be done here.
    pub(crate) fn start(test: &str, setup: Setup) -> Option<Self> {
        let engine = Engine::start_as(test, setup)?;
        engine.load_busybox();
        Some(Self::around(engine))
    }

    /// Puts the bystander into an engine that has the image.
    pub(crate) fn around(engine: Engine) -> Self {
        let mut lab = Self { ticks: engine.path("ticks"), engine, bystander_pid: 0 };
        std::fs::create_dir(lab.engine.path("points")).unwrap();
        std::fs::write(&lab.ticks, "").unwrap();
        let command = "while :; do echo tick >> /ticks; sleep 0.1; done";
        let bind = format!("{}:/ticks", lab.ticks.display());
        lab.create("bystander", command, &json!({ "Binds": [bind] }));
        lab.must("POST", "/containers/bystander/start", "");
        lab.bystander_pid = lab.pid("bystander");
        lab
    }

    /// Ends the engine, which looks for what is left behind, and tells how much was tried. Whatever is lost or leaked has
    /// failed the test by then.
    pub(crate) fn swept(self, count: usize, what: &str) {
        drop(self);
        println!("swept {count} {what}, lost 0, leaked 0");
    }

    /// Arms a point of the programs.
    pub(crate) fn arm(&self, point: &str, action: &str) {
        let directory = self.engine.path("points");
        let new = directory.join("new");
        std::fs::write(&new, format!("{point} {action}\n")).unwrap();
        std::fs::rename(new, directory.join("armed")).unwrap();
    }

    /// Takes an arming back; answers whether it was still there.
    pub(crate) fn disarm(&self) -> bool {
        std::fs::remove_file(self.engine.path("points").join("armed")).is_ok()
    }

    /// A call that may end in any way.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        self.engine.api(method, path, body)
    }

    /// A call that must succeed.
    pub(crate) fn must(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.engine.api(method, path, body).unwrap();
        assert!(answer.is_success(), "{method} {path}: {answer:?}");
        answer
    }

    pub(crate) fn creation(command: &str, host: &Value) -> String {
        json!({ "Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": host }).to_string()
    }

    pub(crate) fn create(&self, name: &str, command: &str, host: &Value) {
        let path = format!("/containers/create?name={name}");
        self.must("POST", &path, &Self::creation(command, host));
    }

    /// Starts the victim and waits until it listens to signals.
    pub(crate) fn start_victim(&self, name: &str) {
        self.must("POST", &format!("/containers/{name}/start"), "");
        self.wait_until_ready(name);
    }

    /// Waits until the victim handles SIGTERM, by the kernel's word.
    pub(crate) fn wait_until_ready(&self, name: &str) {
        let status = format!("/proc/{}/status", self.pid(name));
        self.until("the victim's readiness", || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16).unwrap_or(0);
            caught & (1 << 14) != 0
        });
    }

    /// What inspect says; `None` when there is no such container.
    pub(crate) fn inspect(&self, name: &str) -> Option<Value> {
        let answer = self.engine.api("GET", &format!("/containers/{name}/json"), "").unwrap();
        (answer.status != 404).then(|| {
            assert!(answer.is_success(), "{answer:?}");
            answer.json()
        })
    }

    pub(crate) fn state(&self, name: &str) -> Option<String> {
        Some(self.inspect(name)?["State"]["Status"].as_str()?.to_owned())
    }

    pub(crate) fn pid(&self, name: &str) -> i64 {
        self.inspect(name).map_or(0, |it| it["State"]["Pid"].as_i64().unwrap_or(0))
    }

    /// Starts brigd again if the fault took it.
    pub(crate) fn revive(&mut self, is_dying: bool) {
        let deadline = Instant::now() + PATIENCE;
        while is_dying && !self.engine.daemon_has_ended() {
            assert!(Instant::now() < deadline, "brigd gave no answer and lives");
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.engine.daemon_has_ended() {
            self.engine.restart();
        }
    }

    /// Asks until `question` answers true.
    pub(crate) fn until(&self, what: &str, mut question: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !question() {
            assert!(Instant::now() < deadline, "{what} did not come about");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The bystander runs as the same process and still writes.
    pub(crate) fn check_bystander(&self, case: &str) {
        assert_eq!(self.state("bystander").as_deref(), Some("running"), "{case}");
        assert_eq!(self.pid("bystander"), self.bystander_pid, "{case}");
        let written = || std::fs::metadata(&self.ticks).unwrap().len();
        let before = written();
        self.until(&format!("{case}: a tick of the bystander"), || written() > before);
    }

    /// Records and machine agree.
    pub(crate) fn check_consistency(&self, case: &str) {
        let answer = self.must("GET", "/system/check", "");
        let findings = answer.json()["Findings"].clone();
        assert_eq!(findings, json!([]), "{case}");
    }

    /// The name is free, or can be made so; and it works again from create to removal.
    pub(crate) fn check_reuse(&self, case: &str, name: &str) {
        let removed =
            self.engine.api("DELETE", &format!("/containers/{name}?force=1"), "").unwrap();
        assert!(removed.status == 204 || removed.status == 404, "{case}: {removed:?}");
        self.create(name, "exit 3", &json!({}));
        self.must("POST", &format!("/containers/{name}/start"), "");
        let code = self.must("POST", &format!("/containers/{name}/wait"), "").json()["StatusCode"]
            .as_i64();
        assert_eq!(code, Some(3), "{case}");
        self.must("DELETE", &format!("/containers/{name}"), "");
    }
}
