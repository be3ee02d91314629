//! The guard sees each kind of thing that a test can leave, and no longer once it is gone.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot be set up fails")]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use brig_guard::Guard;

/// The tests of this program leave things on purpose, which each other's guards of the whole program would see.
static ALONE: Mutex<()> = Mutex::new(());

fn alone(test: &str) -> Option<MutexGuard<'static, ()>> {
    if rustix::process::geteuid().is_root() {
        return Some(ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
    eprintln!("SKIPPED {test}: needs root");
    None
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// A process with namespaces of its own that ends with its input.
fn holder() -> Child {
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--", "sh", "-c", "echo ready && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    child
}

/// The guard says that something of the kind is left, and nothing after `undo`.
fn sees(guard: &Guard, kind: &str, undo: impl FnOnce()) {
    let left = guard.glance();
    assert!(left.iter().any(|line| line.starts_with(kind)), "{kind}: {left:#?}");
    undo();
    assert_eq!(guard.left(), Vec::<String>::new(), "{kind}");
}

#[test]
fn everything_that_a_test_leaves_is_seen() {
    let Some(_alone) = alone("guard-kinds") else { return };
    let directory = tempfile::tempdir().unwrap();
    let name = format!("brig-guard-{}", std::process::id());
    let mut guard = Guard::new(directory.path(), &name);
    let mut holding = holder();
    let watched = directory.path().join("watched");
    fs::create_dir(&watched).unwrap();
    guard.prepared(Some(holding.id()), vec![watched.clone()]);
    assert_eq!(guard.left(), Vec::<String>::new());

    let file = watched.join("a");
    fs::write(&file, "").unwrap();
    sees(&guard, "file", || fs::remove_file(&file).unwrap());

    let target = directory.path().join("mounted").display().to_string();
    fs::create_dir(&target).unwrap();
    run(&["mount", "-t", "tmpfs", "tmpfs", &target]);
    sees(&guard, "mount", || run(&["umount", &target]));

    let holder = holding.id().to_string();
    let inside = |words: &[&str]| run(&[&["nsenter", "-t", &holder, "-m", "-n"], words].concat());
    inside(&["mount", "-t", "tmpfs", "tmpfs", &target]);
    sees(&guard, "mount", || inside(&["umount", &target]));
    inside(&["ip", "link", "add", "left0", "type", "veth", "peer", "name", "left1"]);
    sees(&guard, "link", || inside(&["ip", "link", "delete", "left0"]));
    inside(&["nft", "add", "table", "inet", "left"]);
    sees(&guard, "nft rule", || inside(&["nft", "delete", "table", "inet", "left"]));

    let bound = directory.path().join("net").display().to_string();
    fs::write(&bound, "").unwrap();
    run(&["mount", "--bind", &format!("/proc/{holder}/ns/net"), &bound]);
    sees(&guard, "network namespace", || run(&["umount", &bound]));

    if let Some(cgroup) = a_hierarchy().map(|hierarchy| hierarchy.join(&name)) {
        fs::create_dir_all(cgroup.join("left")).unwrap();
        sees(&guard, "cgroup", || {
            fs::remove_dir(cgroup.join("left")).unwrap();
            fs::remove_dir(&cgroup).unwrap();
        });
    }

    for mut command in [in_directory(directory.path()), with_variable(&target)] {
        let mut child = command.spawn().unwrap();
        sees(&guard, "process", || {
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }

    let open = fs::File::open(&watched).unwrap();
    sees(&guard, "descriptor", || drop(open));

    drop(holding.stdin.take());
    holding.wait().unwrap();
    assert_eq!(guard.left_at_the_end(), Vec::<String>::new());
}

fn a_hierarchy() -> Option<std::path::PathBuf> {
    let found = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    found
        .map(Path::new)
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists())
        .map(Path::to_owned)
}

fn in_directory(directory: &Path) -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").current_dir(directory);
    command
}

fn with_variable(text: &str) -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").env("MARK", text);
    command
}

/// What carries no mark is seen by the last guard of the program.
#[test]
fn a_child_and_a_descriptor_without_a_mark_fail_the_last_test() {
    let Some(_alone) = alone("guard-program") else { return };
    let directory = tempfile::tempdir().unwrap();
    let fails = |guard: Guard| {
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(guard)));
        *dropped.unwrap_err().downcast::<String>().unwrap()
    };
    let guard = Guard::new(directory.path(), "");
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    assert_eq!(guard.left_at_the_end(), Vec::<String>::new());
    let said = fails(guard);
    assert!(said.contains("process") && said.contains("sleep"), "{said}");
    let guard = Guard::new(directory.path(), "");
    child.kill().unwrap();
    child.wait().unwrap();
    let pair = std::os::unix::net::UnixStream::pair().unwrap();
    let said = fails(guard);
    assert!(said.contains("descriptor") && said.contains("socket"), "{said}");
    drop(pair);
    let outer = Guard::new(directory.path(), "");
    let open = fs::File::open("/dev/null").unwrap();
    // Another test still runs, which may be whose it is.
    drop(Guard::new(directory.path(), ""));
    drop(open);
    drop(outer);
}
