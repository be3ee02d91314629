//! A bundle, the program, and what it leaves on the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::killer::{self, Point};

const PROGRAM: &str = env!("CARGO_BIN_EXE_brig-runtime");
/// Where Debian's busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";
/// How long what is ending may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bundle whose container sleeps.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    id: String,
}

/// What a container left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    processes: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    mounts: BTreeSet<String>,
    state: BTreeSet<String>,
}

impl Bundle {
    /// A bundle for `test`; `None`, said aloud, where it cannot run.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let missing = if !rustix::process::geteuid().is_root() {
            Some("not root")
        } else if !Path::new(BUSYBOX).exists() {
            Some("no /bin/busybox; install Debian's busybox-static")
        } else {
            None
        };
        if let Some(why) = missing {
            eprintln!("SKIPPED {test}: {why}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("brig-sweep-").tempdir().unwrap();
        let word = test.split('_').take(4).collect::<Vec<_>>().join("-");
        let id = format!("brig-sweep-{word}-{}", std::process::id());
        let bundle = Self { directory, id };
        for name in ["bin", "dev", "proc", "sys"] {
            std::fs::create_dir_all(bundle.path("rootfs").join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, bundle.path("rootfs/bin/busybox")).unwrap();
        for name in ["cat", "sleep", "true"] {
            let link = bundle.path("rootfs/bin").join(name);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        bundle.must(&["spec", "-b", "BUNDLE"]);
        bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["sleep", "1000"]);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
        });
        Some(bundle)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the configuration.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// The program's arguments, with `BUNDLE` and `ID` filled in.
    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let fill = |word: &&str| match *word {
            "BUNDLE" => self.directory.path().display().to_string(),
            "ID" => self.id.clone(),
            other => other.to_owned(),
        };
        let root = ["--root".to_owned(), self.path("state").display().to_string()];
        root.into_iter().chain(arguments.iter().map(fill)).collect()
    }

    /// Runs the program, which must succeed. Its output goes to a file: a container that it starts keeps that open.
    pub(crate) fn must(&self, arguments: &[&str]) {
        let log = self.path("log");
        let output = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(self.arguments(arguments)).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let status = command.status().unwrap();
        assert!(status.success(), "{arguments:?}: {}", std::fs::read_to_string(log).unwrap());
    }

    /// What the program says of the container; `None` when there is none, or it is not made completely.
    pub(crate) fn status(&self) -> Option<String> {
        let mut command = Command::new(PROGRAM);
        let output = command.args(self.arguments(&["state", "ID"])).output().unwrap();
        let state: Value = serde_json::from_slice(&output.stdout).ok()?;
        state["status"].as_str().map(str::to_owned)
    }

    /// Runs a container with the same id to its end.
    pub(crate) fn must_run(&self, place: &str) {
        let config = std::fs::read(self.path("config.json")).unwrap();
        self.edit(|config| config["process"]["args"] = json!(["true"]));
        let run = Command::new(PROGRAM)
            .args(self.arguments(&["run", "-b", "BUNDLE", "ID"]))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(run.status.success(), "{place}: the next run: {run:?}");
        std::fs::write(self.path("config.json"), config).unwrap();
    }

    /// Runs the program and kills at `point`; answers whether it got that far.
    pub(crate) fn killed_at(&self, arguments: &[&str], point: Point) -> bool {
        killer::run(Path::new(PROGRAM), &self.arguments(arguments), point)
    }

    /// What is left of the container, once what is ending has had time to.
    pub(crate) fn leftovers(&self) -> Leftovers {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = Leftovers {
                processes: self.processes(),
                cgroups: self.cgroups(),
                mounts: self.mounts(),
                state: names(&self.path("state")),
            };
            if found == Leftovers::default() || Instant::now() > deadline {
                return found;
            }
            std::thread::yield_now();
        }
    }

    /// Processes whose command line names the container: the program's own clones keep it until they exec.
    fn processes(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for pid in names(Path::new("/proc")) {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&self.id) {
                found.insert(format!("{pid}: {line}"));
            }
        }
        found
    }

    fn cgroups(&self) -> BTreeSet<String> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = names(root).into_iter().map(|name| root.join(name));
        hierarchies
            .chain([root.to_owned()])
            .map(|hierarchy| hierarchy.join(&self.id))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect()
    }

    fn mounts(&self) -> BTreeSet<String> {
        let own = self.directory.path().display().to_string();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = Command::new(PROGRAM)
            .args(self.arguments(&["delete", "--force", "ID"]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
