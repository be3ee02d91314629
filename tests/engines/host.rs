//! A host of a test's own: mount, network and process namespaces in which an engine runs with nothing of the machine's.
//!
//! `/run` is empty, changes to `/etc` and `/var` stay in the test's directory, and the first process of the process
//! namespace is tini, so that nothing an engine leaves behind can outlive the test. Cgroups are the machine's: each
//! host names a parent of its own, and ends with a check that it is empty.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::cgroups;
use support::engine::{Outcome, busybox, pack_busybox, program};
use support::holder::Holder;
use tempfile::TempDir;

/// How long a command may take, and a condition to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an image is called this by every engine.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";

const OURS: [&str; 2] = ["brig-runtime", "containerd-shim-brig-v1"];

/// Prepares the namespaces. `$1` is the test's directory.
const PREPARE: &str = r#"
set -e
mkdir -p "$1/cgroup" "$1/etc.new" "$1/etc.work" "$1/var.new" "$1/var.work"
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1/cgroup" /sys/fs/cgroup
umount --recursive --lazy "$1/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run
for each in etc var; do
    mount -t overlay -o "lowerdir=/$each,upperdir=$1/$each.new,workdir=$1/$each.work" overlay "/$each"
done
ip link set lo up
echo ready
exec cat
"#;

/// The host.
pub(crate) struct Host {
    directory: TempDir,
    /// Parent of the cgroups of all containers, below each hierarchy's root.
    pub(crate) name: String,
    holder: Holder,
    /// The first process of the process namespace, as the machine numbers it.
    init: u32,
    daemons: Vec<Child>,
}

/// The CRIU that `cargo xtask test` unpacks, where it works on this kernel.
pub(crate) fn criu() -> Option<PathBuf> {
    let built = std::path::absolute(program(OURS[0])).unwrap();
    let criu = built.ancestors().nth(2)?.join("criu/bin/criu");
    let check = Command::new(&criu).arg("check").output();
    check.is_ok_and(|output| output.status.success()).then_some(criu)
}

impl Host {
    /// A host, unless a program it needs is missing here; a `SKIPPED` line then says so.
    pub(crate) fn start(test: &str, needed: &[&str]) -> Option<Self> {
        let missing_ours = OURS.into_iter().find(|name| !program(name).is_file());
        let missing =
            ["tini", "nsenter", "unshare", "ip"].iter().chain(needed).find(|name| !installed(name));
        let reason = match (missing_ours, missing) {
            _ if !rustix::process::geteuid().is_root() => "needs root".to_owned(),
            (Some(name), _) => {
                format!("{} is not built: use cargo xtask test", program(name).display())
            }
            (_, Some(name)) => format!("{name} is not installed"),
            _ if busybox().is_none() => "busybox-static is not installed".to_owned(),
            _ => return Some(Self::launch(test)),
        };
        eprintln!("SKIPPED {test}: {reason}");
        None
    }

    fn launch(test: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("brig-engines-").tempdir().unwrap();
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in OURS {
            let built = std::path::absolute(program(name)).unwrap();
            std::os::unix::fs::symlink(built, bin.join(name)).unwrap();
        }
        if let Some(criu) = criu() {
            std::os::unix::fs::symlink(criu, bin.join("criu")).unwrap();
        }
        pack_busybox(&directory.path().join("busybox.tar"));
        let holder = Holder::start(
            Command::new("unshare")
                .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--"])
                .args(["tini", "--", "sh", "-c", PREPARE, "sh"])
                .arg(directory.path()),
        );
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let name = format!("brig-engines-{}-{test}", std::process::id());
        Self { directory, name, holder, init, daemons: Vec::new() }
    }

    /// A path in the test's directory, the same on the machine and in the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A path in the host as the machine reaches it.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    fn command(&self, bound: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--"])
            .args(bound)
            .args(words)
            .stdin(Stdio::null())
            .current_dir(self.directory.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.directory.path())
            .env("CONTAINERD_NAMESPACE", &self.name)
            .env("DOCKER_HOST", "unix:///run/docker.sock")
            .env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        let seconds = PATIENCE.as_secs().to_string();
        let output =
            self.command(&["timeout", "--kill-after=5", &seconds], words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs a command on a terminal of its own.
    pub(crate) fn run_on_terminal(&self, words: &[&str]) -> Outcome {
        let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        self.run(&["script", "--quiet", "--return", "--command", &line, "/dev/null"])
    }

    /// Starts a program that stays; what it prints goes to the file `log`.
    pub(crate) fn spawn(&mut self, words: &[&str], log: &str) {
        let log = self.path(log);
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let error = log.try_clone().unwrap();
        let child = self.command(&[], words).stdout(log).stderr(error).spawn().unwrap();
        self.daemons.push(child);
    }

    /// Kills the program that was started last, without warning.
    pub(crate) fn kill_daemon(&mut self) {
        let mut nsenter = self.daemons.pop().unwrap();
        for child in children(nsenter.id()) {
            let pid = rustix::process::Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        nsenter.wait().unwrap();
    }

    /// What a file of the test holds so far.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes of containers, and what belongs to them, that are still there.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for process in self.run(&["ps", "-eo", "args="]).stdout.lines() {
            let name = process.split(' ').next().unwrap_or_default().rsplit('/').next();
            if name.is_some_and(|name| {
                name.starts_with("containerd-shim") || name == "conmon" || name == "brig-runtime"
            }) {
                leaks.push(format!("process {process}"));
            }
        }
        let mounts = self.run(&["cat", "/proc/self/mountinfo"]).stdout;
        let rootfs = |line: &&str| line.contains("/merged ") || line.contains("/rootfs ");
        leaks.extend(mounts.lines().filter(rootfs).map(str::to_owned));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let parent = hierarchy.path().join(&self.name);
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            // podman keeps its monitors in a cgroup of their own, whatever the runtime.
            let children =
                entries.filter(|entry| entry.path().is_dir() && entry.file_name() != "conmon");
            leaks.extend(children.map(|entry| entry.path().display().to_string()));
        }
        leaks
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        // What a failed test left in its containers goes with the process namespace. Shims and monitors leave a moment
        // after the engine has told the end.
        let deadline = Instant::now() + PATIENCE;
        let leaks = loop {
            let leaks = if failed { Vec::new() } else { self.leaks() };
            if leaks.is_empty() || Instant::now() > deadline {
                break leaks;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        for daemon in &self.daemons {
            for child in children(daemon.id()) {
                let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
                let _gone = pid
                    .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
            }
        }
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        self.holder.release();
        cgroups::remove(&self.name);
        if failed {
            eprintln!("the engine's log:\n{}", self.read("engine.log"));
        } else {
            assert!(leaks.is_empty(), "left behind: {leaks:#?}\n{}", self.read("engine.log"));
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
