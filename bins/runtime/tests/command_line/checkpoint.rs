//! Saving containers and bringing them back, by a CRIU that `cargo xtask test` unpacks in the build directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{Bundle, PROGRAM};
use crate::text;

/// How long a container may take for its next step, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Counts in memory alone, and shows the number.
const COUNTER: &str =
    "n=0; while :; do n=$((n+1)); echo $n >/count/new; mv /count/new /count/n; sleep 0.05; done";

/// A bundle whose container counts, and a CRIU that works on this kernel.
struct Counter {
    bundle: Bundle,
    criu: PathBuf,
}

impl Counter {
    fn new(test: &str) -> Option<Self> {
        let criu = criu(test)?;
        let bundle = Bundle::new(test)?;
        bundle.link(&["mv"]);
        bundle.script(COUNTER);
        std::fs::create_dir(bundle.directory.join("count")).unwrap();
        bundle.edit(|config| {
            let source = bundle.directory.join("count").display().to_string();
            let mounts = config["mounts"].as_array_mut().unwrap();
            let options = json!(["rbind", "nosuid"]);
            mounts.push(json!({"destination": "/count", "type": "bind", "source": source, "options": options}));
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mount", "unshare"], "action": "SCMP_ACT_ERRNO"}]
            });
        });
        Some(Self { bundle, criu })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bundle.command(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.criu.display()));
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        // To files, not pipes: a restored container keeps them open.
        let place = self.bundle.directory.join("output");
        let file = || std::fs::File::options().append(true).create(true).open(&place).unwrap();
        std::fs::write(&place, "").unwrap();
        let status = self.command(arguments).stdout(file()).stderr(file()).status().unwrap();
        Output { status, stdout: Vec::new(), stderr: std::fs::read(place).unwrap() }
    }

    fn succeed(&self, arguments: &[&str]) {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }

    /// Fails; answers why.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stderr)
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn images(&self) -> String {
        format!("{}/images", self.bundle.path())
    }

    fn start(&self) {
        let mut run = self.command(&["run", "-d", "-b", &self.bundle.path(), self.id()]);
        assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        self.count_beyond(1);
    }

    fn restore(&self) -> Vec<String> {
        let words =
            ["restore", "-d", "--image-path", &self.images(), "-b", &self.bundle.path(), self.id()];
        words.map(str::to_owned).to_vec()
    }

    fn count(&self) -> u64 {
        let number = std::fs::read_to_string(self.bundle.directory.join("count/n"));
        number.unwrap_or_default().trim().parse().unwrap_or(0)
    }

    /// Waits until it has counted further; answers how far.
    fn count_beyond(&self, number: u64) -> u64 {
        let end = Instant::now() + PATIENCE;
        while self.count() <= number {
            assert!(Instant::now() < end, "it counts no further than {number}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.count()
    }

    fn status(&self) -> String {
        let output = self.bundle.call(&["state", self.id()]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }

    /// Neither state nor cgroup.
    fn is_gone(&self) -> bool {
        let state = self.bundle.directory.join("state").join(self.id());
        let cgroups = ["freezer", "memory", "unified", ""];
        let cgroup = |name: &&str| Path::new("/sys/fs/cgroup").join(name).join(self.id()).exists();
        !state.exists() && !cgroups.iter().any(cgroup)
    }
}

/// The directory of a CRIU that works here.
fn criu(test: &str) -> Option<PathBuf> {
    let built = Path::new(PROGRAM).ancestors().nth(2).unwrap().join("criu/bin");
    for place in [built.as_path(), Path::new("/usr/sbin")] {
        let check = Command::new(place.join("criu")).arg("check").output();
        if check.is_ok_and(|output| output.status.success()) {
            return Some(place.to_owned());
        }
    }
    eprintln!("SKIPPED {test}: no CRIU that works on this kernel (`cargo xtask test` unpacks one)");
    None
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn a_saved_container_runs_on_where_it_stopped() {
    let test = "a_saved_container_runs_on_where_it_stopped";
    let Some(counter) = Counter::new(test) else { return };
    counter.start();
    counter.succeed(&["checkpoint", "--image-path", &counter.images(), counter.id()]);
    assert!(counter.is_gone(), "a saved container is removed");
    let saved = counter.count();
    let pid_file = counter.bundle.directory.join("pid").display().to_string();
    let mut restore = counter.restore();
    restore.extend(["--pid-file".to_owned(), pid_file.clone()]);
    // Twice: the images stay what they are.
    for _ in 0..2 {
        std::fs::write(counter.bundle.directory.join("count/n"), "0").unwrap();
        counter.succeed(&words(&restore));
        let first = counter.count_beyond(0);
        assert!(first >= saved, "{first} after {saved}: it began anew");
        counter.count_beyond(first);
        assert_eq!(counter.status(), "running");
        let inside = "cat /proc/1/status; cat /sys/class/net/lo/flags; cat /proc/self/cgroup; ls -a /proc/acpi";
        let output = counter.bundle.call(&["exec", counter.id(), "sh", "-c", inside]);
        let inside = text(&output.stdout);
        assert!(inside.contains("Seccomp:\t2") && inside.contains("NoNewPrivs:\t1"), "{inside}");
        assert!(inside.contains("0x9\n"), "lo is up: {inside}");
        assert!(inside.lines().any(|line| line == "0::/"), "its own cgroup namespace: {inside}");
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(cgroup.lines().all(|line| line.ends_with(counter.id())), "{cgroup}");
        let state = counter.bundle.directory.join("state").join(counter.id());
        let mut left: Vec<_> =
            std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["config.json", "state.json"]);
        counter.succeed(&["delete", "-f", counter.id()]);
    }
    assert!(counter.is_gone());
}

#[test]
fn a_container_may_run_on_when_it_is_saved() {
    let test = "a_container_may_run_on_when_it_is_saved";
    let Some(counter) = Counter::new(test) else { return };
    counter.start();
    let work = counter.bundle.directory.join("work");
    counter.succeed(&[
        "checkpoint",
        "--leave-running",
        "--image-path",
        &counter.images(),
        "--work-path",
        work.to_str().unwrap(),
        counter.id(),
    ]);
    counter.count_beyond(counter.count());
    assert_eq!(counter.status(), "running");
    assert!(work.join("dump.log").exists());
    // A paused one is saved as well, and stays paused.
    counter.succeed(&["pause", counter.id()]);
    counter.succeed(&[
        "checkpoint",
        "--leave-running",
        "--image-path",
        &counter.images(),
        counter.id(),
    ]);
    assert_eq!(counter.status(), "paused");
    assert!(counter.fail(&words(&counter.restore())).contains("exists already"));
}

#[test]
fn memory_can_be_saved_ahead() {
    let test = "memory_can_be_saved_ahead";
    let Some(counter) = Counter::new(test) else { return };
    counter.start();
    let ahead = format!("{}/ahead", counter.bundle.path());
    let output = counter.call(&["checkpoint", "--pre-dump", "--image-path", &ahead, counter.id()]);
    let message = text(&output.stderr);
    if message.contains("CONFIG_MEM_SOFT_DIRTY") {
        assert_eq!(counter.status(), "running");
        eprintln!("SKIPPED {test}: this kernel does not track which memory is written");
        return;
    }
    assert!(output.status.success(), "{message}");
    counter.count_beyond(counter.count());
    let checkpoint = |parent: &str| {
        let words = [
            "checkpoint",
            "--parent-path",
            parent,
            "--image-path",
            &counter.images(),
            counter.id(),
        ];
        words.map(str::to_owned)
    };
    assert!(counter.fail(&words(&checkpoint(&ahead))).contains("is not relative"));
    assert!(counter.fail(&words(&checkpoint("../nowhere"))).contains("parent path"));
    counter.succeed(&words(&checkpoint("../ahead")));
    let saved = counter.count();
    counter.succeed(&words(&counter.restore()));
    assert!(counter.count_beyond(saved) > saved);
}

#[test]
fn a_failure_leaves_nothing_but_a_log_and_says_why() {
    let test = "a_failure_leaves_nothing_but_a_log_and_says_why";
    let Some(mut counter) = Counter::new(test) else { return };
    counter.start();
    let real = std::mem::replace(&mut counter.criu, counter.bundle.directory.join("fake"));
    std::fs::create_dir(&counter.criu).unwrap();
    let path = counter.criu.join("criu");
    let put = |script: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let images = counter.images();
    let id = counter.id().to_owned();
    let save = ["checkpoint", "--image-path", &images, &id];
    put("#!/bin/sh\nexit 3\n");
    assert!(counter.fail(&save).contains("criu ended without an answer"));
    put("#!/no/such/interpreter\n");
    assert!(counter.fail(&save).contains("fake/criu"));
    let left: Vec<_> = std::fs::read_dir(&images).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    counter.count_beyond(counter.count());
    counter.criu = real;
    // A file of the host that is open cannot be saved.
    counter.succeed(&["delete", "-f", counter.id()]);
    counter.start();
    counter.succeed(&save);
    std::fs::write(Path::new(&images).join("pstree.img"), "no such thing").unwrap();
    let message = counter.fail(&words(&counter.restore()));
    assert!(message.contains("restore.log ends with") && message.contains("Error ("), "{message}");
    assert!(counter.is_gone(), "{message}");
    std::fs::remove_file(Path::new(&images).join("descriptors.json")).unwrap();
    assert!(counter.fail(&words(&counter.restore())).contains("descriptors.json"));
    assert!(counter.is_gone());
}

/// What was saved had more than the configuration that it is restored with: it is killed before it runs.
#[test]
fn images_cannot_give_more_than_the_configuration() {
    let test = "images_cannot_give_more_than_the_configuration";
    let Some(counter) = Counter::new(test) else { return };
    counter.start();
    counter.succeed(&["checkpoint", "--image-path", &counter.images(), counter.id()]);
    let saved = counter.count();
    let path = counter.bundle.directory.join("config.json");
    let original = std::fs::read(&path).unwrap();
    let other = counter.bundle.directory.join("other");
    std::fs::create_dir(&other).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let changes: [(&str, Change<'_>); 8] = [
        ("CapBnd", &|config| config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL"])),
        ("another seccomp filter", &|config| {
            config["linux"]["seccomp"]["syscalls"][0]["names"] =
                json!(["mount", "unshare", "ptrace"]);
        }),
        ("mqueue", &|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "mqueue");
        }),
        ("without noexec", &|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.last_mut().unwrap()["options"] = json!(["rbind", "nosuid", "noexec"]);
        }),
        ("unmasked", &|config| {
            config["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/proc/meminfo"));
        }),
        ("writable", &|config| {
            config["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/dev/shm"));
        }),
        ("user namespace", &|config| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }),
        ("net namespace", &|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
        }),
    ];
    for (what, change) in changes {
        counter.bundle.edit(change);
        let message = counter.fail(&words(&counter.restore()));
        assert!(message.contains(what), "{what}: {message}");
        assert!(counter.is_gone(), "{what}: {message}");
        assert_eq!(counter.count(), saved, "{what}: it ran");
        std::fs::write(&path, &original).unwrap();
    }
    counter.succeed(&words(&counter.restore()));
    assert!(counter.count_beyond(saved) > saved, "nothing else was wrong with it");
}

/// CRIU would follow links to files of the host, and others could put images there.
#[test]
fn images_are_ordinary_files_that_nobody_else_writes() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = "images_are_ordinary_files_that_nobody_else_writes";
    let Some(counter) = Counter::new(test) else { return };
    counter.start();
    let images = PathBuf::from(counter.images());
    std::fs::create_dir(&images).unwrap();
    let mode =
        |mode| std::fs::set_permissions(&images, std::fs::Permissions::from_mode(mode)).unwrap();
    let save = ["checkpoint", "--image-path", images.to_str().unwrap(), counter.id()];
    mode(0o777);
    assert!(counter.fail(&save).contains("can be changed by others"));
    mode(0o700);
    let victim = counter.bundle.directory.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, images.join("dump.log")).unwrap();
    counter.succeed(&save);
    std::fs::rename(images.join("pages-1.img"), images.join("pages-9.img")).unwrap();
    std::os::unix::fs::symlink(&victim, images.join("pages-1.img")).unwrap();
    let message = counter.fail(&words(&counter.restore()));
    assert!(message.contains("pages-1.img"), "{message}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    mode(0o777);
    assert!(counter.fail(&words(&counter.restore())).contains("can be changed by others"));
    assert!(counter.is_gone());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let test = "what_is_not_supported_is_refused_by_name";
    let Some(counter) = Counter::new(test) else { return };
    let (id, path) = (counter.id(), counter.bundle.path());
    for (arguments, what) in [
        (&["checkpoint", id][..], "does not exist"),
        (&["checkpoint", "--lazy-pages", id], "--lazy-pages"),
        (&["checkpoint", "--status-fd", "5", id], "--status-fd"),
        (&["checkpoint", "--manage-cgroups-mode", "strict", id], "strict"),
        (&["checkpoint", "--manage-cgroups-mode", "odd", id], "odd"),
        (&["checkpoint", "--empty-ns", "ipc", id], "ipc"),
        (&["checkpoint", "--page-server", "nowhere", id], "ADDRESS:PORT"),
        (&["checkpoint", "--nope", id], "--nope"),
        (&["restore", "--no-pivot", "-b", &path, id], "--no-pivot"),
        (&["restore", "--preserve-fds", "1", "-b", &path, id], "--preserve-fds"),
        (&["restore", "--lazy-pages", "-b", &path, id], "--lazy-pages"),
        (&["restore", "-b", &path, "--image-path", "/no/such", id], "/no/such"),
    ] {
        let message = counter.fail(arguments);
        assert!(message.contains(what), "{arguments:?}: {message}");
    }
    let create = counter.command(&["create", "-b", &path, id]).stdout(Stdio::null()).status();
    assert!(create.unwrap().success());
    assert!(
        counter.fail(&["checkpoint", "--image-path", &counter.images(), id]).contains("created")
    );
    let mut features = counter.command(&["features"]);
    let document = features.output().unwrap().stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
    let document = counter.command(&["features"]).env("PATH", "/nowhere").output().unwrap().stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "false");
}
