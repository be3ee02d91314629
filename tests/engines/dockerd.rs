//! dockerd 20.10 with our runtime as its default.

use std::fs;

use support::engine::Outcome;

use crate::host::Host;

struct Dockerd(Host);

impl Dockerd {
    fn start(test: &str, options: &[&str]) -> Option<Self> {
        let host = Host::start(test, &["dockerd", "containerd", "docker"])?;
        // The daemon's key would else be looked for in /etc/docker.
        let key = host.text("key.json");
        fs::write(host.path("daemon.json"), format!("{{\"deprecated-key-path\": {key:?}}}"))
            .unwrap();
        for name in ["subuid", "subgid"] {
            fs::write(host.path("etc.new").join(name), "daemon:100000:65536\n").unwrap();
        }
        let mut dockerd = Self(host);
        let host = &mut dockerd.0;
        let runtime = format!("brig={}", host.text("bin/brig-runtime"));
        let (root, config) = (host.text("docker"), host.text("daemon.json"));
        let parent = format!("/{}", host.name);
        let words = [
            "dockerd",
            "--data-root",
            &root,
            "--exec-root",
            "/run/docker",
            "--pidfile",
            "/run/docker.pid",
            "--host",
            "unix:///run/docker.sock",
            "--config-file",
            &config,
            "--cgroup-parent",
            &parent,
            "--add-runtime",
            &runtime,
            "--default-runtime",
            "brig",
        ];
        host.spawn(&[&words[..], options].concat(), "engine.log");
        dockerd.0.until("dockerd answers", || dockerd.docker(&["version"]).code == Some(0));
        let archive = dockerd.0.text("busybox.tar");
        let _ = dockerd.docker(&["load", "--input", &archive]).success();
        Some(dockerd)
    }

    fn docker(&self, words: &[&str]) -> Outcome {
        self.0.run(&[&["docker"], words].concat())
    }

    /// Runs a script in a new container and removes it.
    fn run(&self, options: &[&str], script: &str) -> Outcome {
        self.docker(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    }
}

#[test]
fn dockerd_runs_a_container_through_its_life() {
    let Some(dockerd) = Dockerd::start("docker-life", &[]) else { return };
    let runtime = dockerd.docker(&["info", "--format", "{{.DefaultRuntime}}"]).success();
    assert_eq!(runtime, "brig");
    assert_eq!(dockerd.run(&[], "echo hi").success(), "hi");
    assert_eq!(dockerd.run(&[], "exit 7").code, Some(7));
    let script = "echo up; trap 'exit 0' TERM; sleep 1000 & wait";
    let words = ["run", "--detach", "--name", "long", "busybox", "sh", "-c", script];
    let _ = dockerd.docker(&words).success();
    let exec = dockerd.docker(&["exec", "long", "sh", "-c", "echo out; exit 3"]);
    assert_eq!((exec.code, &*exec.stdout), (Some(3), "out\n"));
    let status = || {
        let format = ["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "long"];
        dockerd.docker(&format).success()
    };
    let _ = dockerd.docker(&["pause", "long"]).success();
    assert_eq!(status(), "paused 0");
    let _ = dockerd.docker(&["unpause", "long"]).success();
    let top = dockerd.docker(&["top", "long"]).success();
    assert!(top.contains("sleep 1000"), "{top}");
    dockerd.0.until("the log has a line", || dockerd.docker(&["logs", "long"]).stdout == "up\n");
    let _ = dockerd.docker(&["restart", "--time", "20", "long"]).success();
    dockerd.0.until("it is up again", || dockerd.docker(&["logs", "long"]).stdout == "up\nup\n");
    let _ = dockerd.docker(&["kill", "long"]).success();
    dockerd.0.until("it is dead", || status() == "exited 137");
    let _ = dockerd.docker(&["start", "long"]).success();
    assert_eq!(status(), "running 0");
    let _ = dockerd.docker(&["rm", "--force", "long"]).success();
}

#[test]
fn dockerd_s_limits_hold_and_running_out_of_memory_is_told() {
    let Some(dockerd) = Dockerd::start("docker-limits", &[]) else { return };
    let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let hungry = ["run", "--name", "hungry", "--memory", "8m", "busybox", "sh", "-c", script];
    assert_eq!(dockerd.docker(&hungry).code, Some(137));
    let format = ["inspect", "--format", "{{.State.OOMKilled}}", "hungry"];
    assert_eq!(dockerd.docker(&format).success(), "true");
    let _ = dockerd.docker(&["rm", "hungry"]).success();
    let limits = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let words = ["run", "--detach", "--name", "long"];
    let command = ["busybox", "sleep", "1000"];
    let _ = dockerd.docker(&[&words[..], &limits, &command].concat()).success();
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "long"];
    let stats = dockerd.docker(&stats).success();
    assert!(stats.ends_with("/ 64MiB 1"), "{stats}");
    let _ =
        dockerd.docker(&["update", "--memory", "32m", "--memory-swap", "64m", "long"]).success();
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", "long"];
    let stats = dockerd.docker(&stats).success();
    assert!(stats.ends_with("/ 32MiB"), "{stats}");
    let _ = dockerd.docker(&["rm", "--force", "long"]).success();
}

#[test]
fn dockerd_s_options_take_effect() {
    let Some(dockerd) = Dockerd::start("docker-options", &[]) else { return };
    let seccomp = |options: &[&str]| {
        let status = dockerd.run(options, "grep ^Seccomp: /proc/self/status").success();
        status.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(seccomp(&[]), "2");
    assert_eq!(seccomp(&["--security-opt", "seccomp=unconfined"]), "0");
    assert_ne!(dockerd.run(&[], "unshare -U true").code, Some(0));
    let tty = ["docker", "run", "--rm", "--tty", "busybox", "tty"];
    assert!(dockerd.0.run_on_terminal(&tty).success().contains("/dev/pts/0"));
    let read_only = dockerd.run(&["--read-only", "--tmpfs", "/tmp"], "echo >/tmp/x; echo >/x");
    assert!(read_only.stderr.contains("Read-only file system"), "{read_only:?}");
    let init = dockerd.run(&["--init"], "cat /proc/1/cmdline").success();
    assert!(init.contains("docker-init"), "{init:?}");
    let user = dockerd.run(&["--user", "1000:1000", "--cap-drop", "ALL"], "id -u");
    assert_eq!(user.success(), "1000");
    assert_eq!(dockerd.run(&["--ulimit", "nofile=100:200"], "ulimit -n").success(), "100");
    let missing = dockerd.docker(&["run", "--rm", "busybox", "nosuch"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    let directory = dockerd.docker(&["run", "--rm", "busybox", "/etc"]);
    assert_eq!(directory.code, Some(126), "{directory:?}");
}

#[test]
fn dockerd_remaps_users() {
    let Some(dockerd) = Dockerd::start("docker-userns", &["--userns-remap", "daemon"]) else {
        return;
    };
    let map = dockerd.run(&[], "cat /proc/self/uid_map").success();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(dockerd.run(&[], "id -u; echo >/file && stat -c %u /file").success(), "0\n0");
    let words = ["run", "--detach", "--name", "long", "busybox", "sleep", "1000"];
    let _ = dockerd.docker(&words).success();
    assert_eq!(dockerd.docker(&["exec", "long", "id", "-u"]).success(), "0");
    let _ = dockerd.docker(&["rm", "--force", "long"]).success();
}
