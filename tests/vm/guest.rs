//! The guest: the installed engine under systemd, and what must be the same after every test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use support::engine::{Outcome, eventually, pack_busybox};

/// By software, on a busy machine, a command takes its time; one that takes longer hangs.
const COMMAND_LIMIT_S: &str = "180";

/// False, and says so, outside of a guest: these tests take the machine for theirs.
pub(crate) fn is_here(test: &str) -> bool {
    let here = std::env::var_os("BRIG_VM").is_some();
    if !here {
        eprintln!("SKIPPED {test}: runs only in a guest, by cargo xtask test");
    }
    here
}

/// Whether one cgroup hierarchy has all controllers.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A test's turn with the installed engine. When it ends, the machine must hold what it held before.
pub(crate) struct Engine {
    before: BTreeSet<String>,
}

impl Engine {
    /// The engine, which the first test that asks starts as an administrator does; `None` outside of a guest.
    pub(crate) fn turn(test: &str) -> Option<Self> {
        static STARTED: OnceLock<()> = OnceLock::new();
        if !is_here(test) {
            return None;
        }
        STARTED.get_or_init(|| {
            let _ = systemctl(&["daemon-reload"]).success();
            let _ = systemctl(&["start", "brig.socket"]).success();
            assert_ne!(systemctl(&["is-active", "brig.service"]).code, Some(0));
            // Whoever speaks first starts the daemon.
            pack_busybox(Path::new("/tmp/busybox.tar"));
            let _ = brig(&["load", "-i", "/tmp/busybox.tar"]).success();
            let _ = systemctl(&["is-active", "brig.service"]).success();
        });
        Some(Self { before: holdings() })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = brig(&["ps", "--all", "--quiet"]).stdout.lines().for_each(|id| {
            let _ = brig(&["rm", "--force", id]);
        });
        if std::thread::panicking() {
            let log =
                run(Command::new("journalctl").args(["-b", "-u", "brig.service", "-n", "60"]));
            eprintln!("{}", log.stdout);
            return;
        }
        let left = || -> Option<Vec<String>> {
            let left: Vec<_> = holdings().difference(&self.before).cloned().collect();
            (!left.is_empty()).then_some(left)
        };
        // A process that was killed, and what goes with it, may take a moment to go.
        eventually("the machine to be as it was", || {
            let left = left();
            if let Some(left) = &left {
                eprintln!("still there: {left:?}");
            }
            left.is_none().then_some(())
        });
    }
}

/// Everything an engine makes on a machine: mounts, links, rules, cgroups, shims, and files at run time.
fn holdings() -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    held.extend(
        mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))),
    );
    for link in fs::read_dir("/sys/class/net").unwrap().flatten() {
        held.insert(format!("link {}", link.file_name().to_string_lossy()));
    }
    let rules = run(Command::new("nft").args(["list", "ruleset"])).stdout;
    held.extend(rules.lines().map(|line| format!("rule {}", line.trim())));
    let mut queue = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                queue.push(entry.path());
                let path = entry.path().display().to_string();
                // systemd's own units come and go; the one above all containers stays.
                let passing = path.contains(".service") || path.contains(".slice");
                if path.contains("brig") && !passing && entry.file_name() != "brig" {
                    held.insert(format!("cgroup {path}"));
                }
            }
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with("containerd-shim") || name.starts_with("brig-runtime") {
            held.insert(format!("process {}", process.path().display()));
        }
    }
    held
}

/// Runs `brig` as an operator does.
pub(crate) fn brig(words: &[&str]) -> Outcome {
    run(Command::new("brig").args(words))
}

pub(crate) fn systemctl(words: &[&str]) -> Outcome {
    run(Command::new("systemctl").args(words))
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", COMMAND_LIMIT_S]).arg(command.get_program());
    bounded.args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        bounded.current_dir(directory);
    }
    let output = bounded.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// The process id of a container's first process.
pub(crate) fn pid(container: &str) -> u32 {
    let pid = brig(&["inspect", "--format", "{{.State.Pid}}", container]).success();
    pid.parse().unwrap()
}

/// A limit's value as the kernel holds it, of the cgroup of process `pid`; `controller` is the v1 hierarchy's name.
pub(crate) fn cgroup_value(pid: u32, controller: &str, file: &str) -> String {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted = if is_unified() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        wanted.then_some(path)
    });
    let hierarchy = if is_unified() { "" } else { controller };
    let path = Path::new("/sys/fs/cgroup")
        .join(hierarchy)
        .join(path.unwrap().trim_start_matches('/'))
        .join(file);
    let value = fs::read_to_string(&path);
    value.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
