//! R7 (CVE-2019-5736): a container makes the runtime execute its own file, keeps that open, and writes to it.
//!
//! This test program is the runtime here: a copy of it makes a container and ends. The container's program is a script
//! whose interpreter is `/proc/self/exe`, and so the copy once more, inside. Two of the tests below are these roles; they
//! do nothing by themselves.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brig_runtime::{ContainerId, CreateOptions, Runtime};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use crate::support::{Fixture, null};

/// Which role a process plays, and the bundle of the embedder.
const ROLE: &str = "BRIG_SAFETY_ROLE";
const BUNDLE: &str = "BRIG_SAFETY_BUNDLE";

/// Tries until the file is no longer executed, or can never be written. The descriptor is the first argument.
const OVERWRITE: &str = r#"
while :; do
    if error=$( { echo overwritten >> "/proc/self/fd/$1"; } 2>&1 ); then echo written; break; fi
    case "$error" in *busy*) ;; *) echo "$error"; break;; esac
done > /answer"#;

#[test]
fn a_container_cannot_overwrite_its_runtime() {
    let Some(mut fixture) = Fixture::new("a_container_cannot_overwrite_its_runtime") else {
        return;
    };
    let runtime = fixture.path("runtime");
    let entry = fixture.path("rootfs/entry");
    std::fs::write(&entry, "#!/proc/self/exe role_of_the_container\n").unwrap();
    std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o755)).unwrap();
    provide_libraries(&fixture.path("rootfs"));
    fixture.set("/process/args", json!(["/entry"]));
    fixture.set("/process/env", json!(["PATH=/bin", format!("{ROLE}=container")]));
    for (role, changed, words) in
        [("unsealed", true, "written"), ("sealed", false, "Read-only file system")]
    {
        let before = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // By a process of its own: a child that another test makes meanwhile would hold a descriptor of ours that writes to
        // it, and the kernel executes no file that is being written.
        let copied =
            Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&runtime).status();
        assert!(copied.unwrap().success());
        let answer = attacked(&fixture, &runtime, role);
        let after = std::fs::read(&runtime).unwrap();
        assert_eq!(after != before, changed, "{role}: {answer}");
        assert!(answer.contains(words), "{role}: {answer}");
    }
}

/// Lets `runtime` make the container, and waits until the attack in it is over.
fn attacked(fixture: &Fixture, runtime: &Path, role: &str) -> String {
    std::fs::write(fixture.path("config.json"), fixture.config.to_string()).unwrap();
    let made = Command::new(runtime)
        .args(["--exact", "overwrite::role_of_the_runtime", "--nocapture"])
        .env(ROLE, role)
        .env(BUNDLE, fixture.directory.path())
        .env("BRIG_SAFETY_ID", fixture.id.as_str())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pid = std::fs::read_to_string(fixture.path("pid")).unwrap().parse().unwrap();
    // Its parent has ended; where somebody has reaped it already, it is over too.
    if let Ok(init) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        poll(&mut [PollFd::new(&init, PollFlags::IN)], None).unwrap();
    }
    fixture.runtime.container(&fixture.id).unwrap().delete(true).unwrap();
    std::fs::read_to_string(fixture.path("rootfs/answer")).unwrap()
}

/// What this program is linked with, in the container.
fn provide_libraries(rootfs: &Path) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    for library in files.filter(|file| file.contains(".so")) {
        let to = rootfs.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(library, to).unwrap();
    }
    // The interpreter is asked for by this name, whatever link led to it.
    let interpreter = Path::new("/lib64/ld-linux-x86-64.so.2");
    if interpreter.exists() {
        std::fs::create_dir_all(rootfs.join("lib64")).unwrap();
        std::fs::copy(interpreter, rootfs.join("lib64/ld-linux-x86-64.so.2")).unwrap();
    }
}

#[test]
fn role_of_the_runtime() {
    let role = std::env::var(ROLE).unwrap_or_default();
    if role == "sealed" {
        brig_runtime::seal_executable(std::env::args_os(), std::env::vars_os()).unwrap();
    }
    let Some(bundle) = std::env::var_os(BUNDLE).map(PathBuf::from) else { return };
    let id = ContainerId::parse(&std::env::var("BRIG_SAFETY_ID").unwrap()).unwrap();
    let pid_file = Some(bundle.join("pid"));
    let options = CreateOptions { stdio: null(), pid_file, ..CreateOptions::default() };
    let created = Runtime::new(bundle.join("state")).create(&id, &bundle, options).unwrap();
    created.container.start().unwrap();
}

#[test]
fn role_of_the_container() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "container") {
        return;
    }
    let own = std::fs::File::open("/proc/self/exe").unwrap();
    rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
    let number = own.as_raw_fd().to_string();
    let error = Command::new("/bin/sh").args(["-c", OVERWRITE, "sh", &number]).exec();
    panic!("{error}");
}
