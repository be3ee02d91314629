//! podman 4.3 with our runtime.

use std::fs;

use support::engine::Outcome;

use crate::host::Host;

struct Podman(Host);

impl Podman {
    fn start(test: &str) -> Option<Self> {
        let host = Host::start(test, &["podman", "conmon"])?;
        // podman would raise limits that a container of the test itself may not raise.
        let config = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                      [engine]\nevents_logger = \"file\"\n";
        fs::write(host.path("containers.conf"), config).unwrap();
        let podman = Self(host);
        let archive = podman.0.text("busybox.tar");
        let _ = podman.podman(&["load", "--quiet", "--input", &archive]).success();
        Some(podman)
    }

    fn words<'a>(roots: &'a [String; 2], words: &[&'a str]) -> Vec<&'a str> {
        let [root, runtime] = roots;
        let global = [
            "podman",
            "--root",
            root,
            "--runroot",
            "/run/podman",
            "--tmpdir",
            "/run/libpod",
            "--runtime",
            runtime,
            "--cgroup-manager",
            "cgroupfs",
            "--storage-driver",
            "overlay",
        ];
        [&global[..], words].concat()
    }

    fn roots(&self) -> [String; 2] {
        [self.0.text("podman"), self.0.text("bin/brig-runtime")]
    }

    fn podman(&self, words: &[&str]) -> Outcome {
        self.0.run(&Self::words(&self.roots(), words))
    }

    /// `run` with what every container of these tests needs.
    fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let parent = format!("/{}", self.0.name);
        let fixed = ["run", "--network", "none", "--cgroup-parent", &parent];
        self.podman(&[&fixed[..], options, &["busybox"], command].concat())
    }
}

#[test]
fn podman_runs_a_container_through_its_life() {
    let Some(podman) = Podman::start("podman-life") else { return };
    assert_eq!(podman.run(&["--rm"], &["echo", "hi"]).success(), "hi");
    assert_eq!(podman.run(&["--rm"], &["sh", "-c", "exit 7"]).code, Some(7));
    let script = "echo up; trap 'exit 0' TERM; sleep 1000 & wait";
    let _ = podman.run(&["--detach", "--name", "long"], &["sh", "-c", script]).success();
    let exec = podman.podman(&["exec", "long", "sh", "-c", "echo out; exit 3"]);
    assert_eq!((exec.code, &*exec.stdout), (Some(3), "out\n"));
    let status = || {
        let format = ["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "long"];
        podman.podman(&format).success()
    };
    let _ = podman.podman(&["pause", "long"]).success();
    assert_eq!(status(), "paused 0");
    let _ = podman.podman(&["unpause", "long"]).success();
    let top = podman.podman(&["top", "long"]).success();
    assert!(top.contains("sleep 1000"), "{top}");
    podman.0.until("the log has a line", || podman.podman(&["logs", "long"]).stdout == "up\n");
    let _ = podman.podman(&["restart", "--time", "20", "long"]).success();
    podman.0.until("it is up again", || podman.podman(&["logs", "long"]).stdout == "up\nup\n");
    let _ = podman.podman(&["kill", "long"]).success();
    assert_eq!(podman.podman(&["wait", "long"]).success(), "137");
    let _ = podman.podman(&["start", "long"]).success();
    let _ = podman.podman(&["rm", "--force", "--time", "0", "long"]).success();
}

#[test]
fn podman_s_options_take_effect() {
    let Some(podman) = Podman::start("podman-options") else { return };
    let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    assert_eq!(podman.run(&["--rm", "--memory", "8m"], &["sh", "-c", script]).code, Some(137));
    let options = ["--detach", "--name", "long", "--memory", "64m"];
    let _ = podman.run(&options, &["sleep", "1000"]).success();
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", "long"];
    let stats = podman.podman(&stats).success();
    assert!(stats.ends_with("/ 67.11MB"), "{stats}");
    let _ = podman.podman(&["rm", "--force", "--time", "0", "long"]).success();
    let status = podman.run(&["--rm"], &["grep", "^Seccomp:", "/proc/self/status"]).success();
    assert_eq!(status, "Seccomp:\t2");
    let parent = format!("--cgroup-parent=/{}", podman.0.name);
    let tty = ["run", "--rm", "--tty", "--network=none", &parent, "busybox", "tty"];
    let seen = podman.0.run_on_terminal(&Podman::words(&podman.roots(), &tty)).success();
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
    let maps = ["--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let map = podman.run(&maps, &["cat", "/proc/self/uid_map"]).success();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let user = podman.run(&["--rm", "--user", "1000:1000", "--cap-drop", "ALL"], &["id", "-u"]);
    assert_eq!(user.success(), "1000");
    assert_eq!(podman.run(&["--rm"], &["nosuch"]).code, Some(127));
    assert_eq!(podman.run(&["--rm"], &["/etc"]).code, Some(126));
}
