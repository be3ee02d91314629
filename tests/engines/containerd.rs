//! containerd 1.6, by `ctr`: our shim by its contract, and our runtime below containerd's own shim.

use std::fs;

use support::engine::Outcome;

use crate::host::{Host, IMAGE};

/// containerd finds `containerd-shim-brig-v1` for this name by PATH.
const RUNTIME: [&str; 2] = ["--runtime", "io.containerd.brig.v1"];

const SOCKET: &str = "/run/containerd/containerd.sock";

struct Containerd(Host);

impl Containerd {
    fn start(test: &str) -> Option<Self> {
        let host = Host::start(test, &["containerd", "ctr", "runc"])?;
        let root = host.text("containerd");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {SOCKET:?}\n"
        );
        fs::write(host.path("containerd.toml"), config).unwrap();
        let mut containerd = Self(host);
        containerd.launch();
        let archive = containerd.0.text("busybox.tar");
        let _ = containerd.ctr(&["image", "import", &archive]).success();
        Some(containerd)
    }

    fn launch(&mut self) {
        let config = self.0.text("containerd.toml");
        self.0.spawn(&["containerd", "--config", &config], "engine.log");
        self.0.until("containerd answers", || self.ctr(&["version"]).code == Some(0));
    }

    fn ctr(&self, words: &[&str]) -> Outcome {
        self.0.run(&[&["ctr"], words].concat())
    }

    /// Runs a script in a new container and removes it.
    fn run(&self, options: &[&str], id: &str, script: &str) -> Outcome {
        let before: Vec<&str> = [&["run", "--rm"][..], &RUNTIME, options].concat();
        self.ctr(&[&before[..], &[IMAGE, id, "sh", "-c", script]].concat())
    }

    /// Leaves a container running.
    fn run_detached(&self, options: &[&str], id: &str, script: &str) {
        let before: Vec<&str> = [&["run", "--detach"][..], options].concat();
        let _ = self.ctr(&[&before[..], &[IMAGE, id, "sh", "-c", script]].concat()).success();
    }

    fn status(&self, id: &str) -> String {
        let list = self.ctr(&["task", "list"]).success();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().to_owned()
    }

    /// Kills, deletes and removes.
    fn remove(&self, id: &str) {
        let _ = self.ctr(&["task", "kill", "--signal", "KILL", id]).success();
        self.0.until("the task stops", || self.status(id) == "STOPPED");
        let _ = self.ctr(&["task", "delete", id]).success();
        let _ = self.ctr(&["container", "delete", id]).success();
    }

    /// Writes events to a file from now on.
    fn record_events(&mut self, file: &str) {
        self.0.spawn(&["ctr", "events"], file);
        let label = ["namespace", "label", &self.0.name.clone(), "watched=yes"];
        // The subscription is there once an event of ours comes through.
        self.0.until("events arrive", || {
            let _ = self.ctr(&label).success();
            self.0.read(file).contains("/namespaces/update")
        });
    }

    /// Waits for an event and answers what it says.
    fn event(&self, file: &str, topic: &str, id: &str) -> String {
        let mut found = String::new();
        let container = format!("\"container_id\":\"{id}\"");
        self.0.until(&format!("{topic} of {id}"), || {
            let events = self.0.read(file);
            let line =
                events.lines().find(|line| line.contains(topic) && line.contains(&container));
            found = line.unwrap_or_default().to_owned();
            line.is_some()
        });
        found
    }
}

#[test]
fn containerd_runs_a_container_from_create_to_delete() {
    let Some(mut containerd) = Containerd::start("lifecycle") else { return };
    containerd.record_events("events");
    assert_eq!(containerd.run(&[], "hello", "echo hello; echo oops >&2").success(), "hello");
    assert_eq!(containerd.run(&[], "seven", "exit 7").code, Some(7));
    assert!(containerd.event("events", "/tasks/exit ", "seven").contains("\"exit_status\":7"));
    containerd.run_detached(&RUNTIME, "long", "sleep 1000");
    assert_eq!(containerd.status("long"), "RUNNING");
    let exec = ["task", "exec", "--exec-id", "one", "long", "sh", "-c", "echo out; exit 3"];
    let exec = containerd.ctr(&exec);
    assert_eq!((exec.code, &*exec.stdout), (Some(3), "out\n"));
    let _ = containerd.ctr(&["task", "pause", "long"]).success();
    assert_eq!(containerd.status("long"), "PAUSED");
    let _ = containerd.ctr(&["task", "resume", "long"]).success();
    assert_eq!(containerd.status("long"), "RUNNING");
    let metrics = containerd.ctr(&["task", "metrics", "long"]).success();
    assert!(metrics.contains("memory") && metrics.contains("pids.current"), "{metrics}");
    let pids = containerd.ctr(&["task", "ps", "long"]).success();
    assert_eq!(pids.lines().count(), 2, "{pids}");
    containerd.remove("long");
    for topic in
        ["create", "start", "exec-added", "exec-started", "paused", "resumed", "exit", "delete"]
    {
        let _ = containerd.event("events", &format!("/tasks/{topic} "), "long");
    }
    let exit = containerd.event("events", "/tasks/delete ", "long");
    assert!(exit.contains("\"exit_status\":137"), "{exit}");
    containerd.0.kill_daemon();
}

#[test]
fn containerd_saves_a_container() {
    let Some(mut containerd) = Containerd::start("checkpoint") else { return };
    if crate::host::criu().is_none() {
        eprintln!("SKIPPED containerd_saves_a_container: no CRIU that works on this kernel");
        containerd.0.kill_daemon();
        return;
    }
    containerd.record_events("events");
    containerd.run_detached(&RUNTIME, "saved", "while :; do sleep 1; done");
    let checkpoint = containerd.ctr(&["task", "checkpoint", "saved"]);
    let _ = checkpoint.success();
    let event = containerd.event("events", "/tasks/checkpointed ", "saved");
    assert!(event.contains("checkpoint"), "{event}");
    // It was paused meanwhile, and runs on.
    assert_eq!(containerd.status("saved"), "RUNNING");
    assert!(containerd.ctr(&["image", "list", "-q"]).success().contains("checkpoint"));
    containerd.remove("saved");
    containerd.0.kill_daemon();
}

#[test]
fn containerd_gives_a_container_a_terminal_and_input() {
    let Some(containerd) = Containerd::start("terminal") else { return };
    let words = [&["ctr", "run", "--rm", "--tty"][..], &RUNTIME, &[IMAGE, "tty", "tty"]].concat();
    let seen = containerd.0.run_on_terminal(&words).success();
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
    // ctr passes the end of its input on only once the task exists.
    let input = "until ctr task list | grep -q 'input.*RUNNING'; do :; done; printf 'a\\nb\\n'";
    let piped = format!("({input}) | ctr run --rm {} {IMAGE} input cat", RUNTIME.join(" "));
    assert_eq!(containerd.0.run(&["sh", "-c", &piped]).success(), "a\nb");
    let exec = ["ctr", "task", "exec", "--tty", "--exec-id", "t", "long", "tty"];
    containerd.run_detached(&RUNTIME, "long", "sleep 1000");
    let seen = containerd.0.run_on_terminal(&exec).success();
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
    containerd.remove("long");
}

#[test]
fn containerd_hears_of_memory_that_ran_out() {
    let Some(mut containerd) = Containerd::start("memory") else { return };
    containerd.record_events("events");
    let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let limit = ["--memory-limit", "8388608"];
    assert_eq!(containerd.run(&limit, "hungry", script).code, Some(137));
    let _ = containerd.event("events", "/tasks/oom ", "hungry");
    containerd.0.kill_daemon();
}

#[test]
fn a_container_outlives_containerd_and_its_exit_code_waits() {
    let Some(mut containerd) = Containerd::start("restart") else { return };
    let gate = containerd.0.path("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let mount = format!("type=bind,src={},dst=/gate,options=rbind:ro", gate.display());
    let options = [&RUNTIME[..], &["--mount", &mount]].concat();
    containerd.run_detached(&options, "ends", "cat /gate; exit 7");
    containerd.run_detached(&RUNTIME, "stays", "sleep 1000");
    let pids = containerd.ctr(&["task", "ps", "ends"]).success();
    let inside: String = pids.lines().nth(1).unwrap().split_whitespace().next().unwrap().into();
    containerd.0.kill_daemon();
    // Opening a FIFO for writing waits for its reader, so the container is told while containerd is down.
    fs::write(&gate, "go\n").unwrap();
    containerd.0.until("the container ends", || {
        containerd.0.run(&["test", "-d", &format!("/proc/{inside}")]).code != Some(0)
    });
    containerd.launch();
    assert_eq!(containerd.status("ends"), "STOPPED");
    let deleted = containerd.ctr(&["task", "delete", "ends"]);
    assert!(deleted.stderr.contains("exit code 7"), "{deleted:?}");
    let _ = containerd.ctr(&["container", "delete", "ends"]).success();
    assert_eq!(containerd.status("stays"), "RUNNING");
    let exec = ["task", "exec", "--exec-id", "again", "stays", "echo", "again"];
    assert_eq!(containerd.ctr(&exec).success(), "again");
    containerd.record_events("events");
    containerd.remove("stays");
    let exit = containerd.event("events", "/tasks/delete ", "stays");
    assert!(exit.contains("\"exit_status\":137"), "{exit}");
    containerd.0.kill_daemon();
}

#[test]
fn a_logger_by_containerd_s_contract_gets_what_a_container_writes() {
    let Some(containerd) = Containerd::start("logger") else { return };
    let logger = containerd.0.path("logger");
    let script = "#!/bin/sh\ncd \"$2\"\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE\" > told\nexec 5>&-\n\
                  cat <&3 > logged &\ncat <&4 > errors\nwait\necho > done\n";
    fs::write(&logger, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&logger, executable).unwrap();
    let directory = logger.parent().unwrap().display().to_string();
    let uri = format!("binary://{}?to={directory}", logger.display());
    let options = [&RUNTIME[..], &["--log-uri", &uri]].concat();
    containerd.run_detached(&options, "logged", "seq 1000; echo oops >&2; exit 3");
    containerd.0.until("the logger ends", || logger.with_file_name("done").exists());
    assert_eq!(containerd.0.read("told"), format!("logged {}\n", containerd.0.name));
    let logged = containerd.0.read("logged");
    assert!(logged.ends_with("\n1000\n") && logged.lines().count() == 1000, "{logged}");
    assert_eq!(containerd.0.read("errors"), "oops\n");
    containerd.0.until("the task stops", || containerd.status("logged") == "STOPPED");
    let deleted = containerd.ctr(&["task", "delete", "logged"]);
    assert!(deleted.stderr.contains("exit code 3"), "{deleted:?}");
    let _ = containerd.ctr(&["container", "delete", "logged"]).success();
}

/// Runs what there is to see of a runtime program below the shim for runc.
fn drive(containerd: &Containerd, program: &str) {
    let binary = ["--runc-binary", program];
    let words = [&["run", "--rm"], &binary[..], &[IMAGE, "five", "sh", "-c", "exit 5"]].concat();
    assert_eq!(containerd.ctr(&words).code, Some(5));
    let tty = [&["ctr", "run", "--rm", "--tty"], &binary[..], &[IMAGE, "tty", "tty"]].concat();
    let seen = containerd.0.run_on_terminal(&tty).success();
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
    containerd.run_detached(&binary, "long", "sleep 1000");
    let exec = ["task", "exec", "--exec-id", "one", "long", "echo", "inside"];
    assert_eq!(containerd.ctr(&exec).success(), "inside");
    let _ = containerd.ctr(&["task", "pause", "long"]).success();
    assert_eq!(containerd.status("long"), "PAUSED");
    let _ = containerd.ctr(&["task", "resume", "long"]).success();
    let metrics = containerd.ctr(&["task", "metrics", "long"]).success();
    assert!(metrics.contains("pids.current"), "{metrics}");
    assert_eq!(containerd.ctr(&["task", "ps", "long"]).success().lines().count(), 2);
}

/// A container that needs more memory than it may have.
fn exhaust(containerd: &Containerd, program: &str, id: &str) {
    let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let limit = ["run", "--rm", "--memory-limit", "8388608", "--runc-binary", program];
    let hungry = [&limit[..], &[IMAGE, id, "sh", "-c", script]].concat();
    assert_eq!(containerd.ctr(&hungry).code, Some(137));
    let _ = containerd.event("events", "/tasks/oom ", id);
}

#[test]
fn containerd_s_own_shim_drives_our_runtime() {
    let Some(mut containerd) = Containerd::start("runc-shim") else { return };
    containerd.record_events("events");
    let program = containerd.0.text("bin/brig-runtime");
    drive(&containerd, &program);
    containerd.remove("long");
    exhaust(&containerd, &program, "hungry");
    containerd.0.kill_daemon();
}

#[test]
fn our_shim_in_the_place_of_runc_s_drives_runc_and_our_runtime() {
    let Some(mut containerd) = Containerd::start("in-place") else { return };
    // ctr offers runc's options for runc's shim only, which containerd looks for by PATH.
    let ours = containerd.0.path("bin/containerd-shim-brig-v1");
    std::os::unix::fs::symlink(ours, containerd.0.path("bin/containerd-shim-runc-v2")).unwrap();
    containerd.record_events("events");
    let our_runtime = containerd.0.text("bin/brig-runtime");
    for (program, hungry) in [("runc", "hungry"), (&*our_runtime, "hungrier")] {
        drive(&containerd, program);
        let programs = "for each in /proc/[0-9]*; do readlink $each/exe; done; :";
        let programs = containerd.0.run(&["sh", "-c", programs]).success();
        assert!(programs.contains("containerd-shim-brig-v1"), "{programs}");
        containerd.remove("long");
        exhaust(&containerd, program, hungry);
    }
    let missing = ["run", "--rm", "--runc-binary", "/no/such/runtime", IMAGE, "none", "true"];
    let missing = containerd.ctr(&missing);
    assert!(missing.stderr.contains("/no/such/runtime"), "{missing:?}");
    containerd.0.kill_daemon();
}
