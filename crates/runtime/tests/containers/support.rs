//! A bundle per test, and running it.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use brig_runtime::pidfd::{Exit, wait_child};
use brig_runtime::{
    Console, Container, ContainerId, CreateOptions, Created, ExecOptions, Runtime, Stdio,
};
use serde_json::{Value, json};

/// Where Debian's busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// A bundle with its runtime; everything goes when it is dropped.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) id: ContainerId,
    pub(crate) config: Value,
}

/// What a process printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Fixture {
    /// A bundle for `test`; `None`, said aloud, where no container can be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
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
        let directory = tempfile::tempdir().unwrap();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("brig-test-{}-{number}", std::process::id());
        make_rootfs(&directory.path().join("rootfs"));
        Some(Self {
            runtime: Runtime::new(directory.path().join("state")),
            id: ContainerId::parse(&id).unwrap(),
            directory,
            config: config(&id),
        })
    }

    /// A path in the bundle.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets a field of the configuration, by its JSON pointer.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[name] = value;
    }

    /// Adds to a list of the configuration.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }

    /// Sets the program to a shell script.
    pub(crate) fn script(&mut self, script: &str) {
        self.set("/process/args", json!(["sh", "-c", script]));
    }

    /// Removes a namespace, and adds `with` in its place.
    pub(crate) fn namespace(&mut self, kind: &str, with: Option<Value>) {
        let list = self.config.pointer_mut("/linux/namespaces").unwrap().as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        list.extend(with);
    }

    /// Creates the container.
    pub(crate) fn create(&self, options: CreateOptions) -> brig_runtime::Result<Created> {
        std::fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        self.runtime.create(&self.id, self.directory.path(), options)
    }

    /// Creates and starts it in the background, without output.
    pub(crate) fn start(&self) -> Created {
        let options = CreateOptions { stdio: null(), ..CreateOptions::default() };
        let created = self.create(options).unwrap();
        created.container.start().unwrap();
        created
    }

    /// Runs the container to its end and deletes it.
    pub(crate) fn run(&self) -> brig_runtime::Result<Output> {
        self.run_with(CreateOptions::default())
    }

    /// As [`Self::run`], with options whose standard descriptors are replaced.
    pub(crate) fn run_with(&self, options: CreateOptions) -> brig_runtime::Result<Output> {
        let (stdio, output) = pipes();
        let created = self.create(CreateOptions { stdio, ..options })?;
        let started = created.container.start();
        let collected = started.map(|()| output.collect(&created.pidfd));
        if collected.is_err() {
            let _ = wait_child(created.pidfd.as_fd());
        }
        created.container.delete(true)?;
        collected
    }

    /// The standard output of a script that must succeed.
    pub(crate) fn output(&mut self, script: &str) -> String {
        self.script(script);
        let output = self.run().unwrap();
        assert_eq!(output.exit, Exit::Code(0), "{output:?}");
        output.stdout
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Ok(container) = self.runtime.container(&self.id) {
            let _ = container.delete(true);
        }
    }
}

/// Runs a process in a container to its end.
pub(crate) fn exec(container: &Container, process: &Value) -> brig_runtime::Result<Output> {
    let process = serde_json::from_value(process.clone()).unwrap();
    let (stdio, output) = pipes();
    let exec = container.exec(&process, ExecOptions { stdio, ..ExecOptions::default() })?;
    Ok(output.collect(&exec.pidfd))
}

/// Standard descriptors that lead nowhere.
pub(crate) fn null() -> Stdio {
    let null = || {
        Some(OwnedFd::from(
            std::fs::File::options().read(true).write(true).open("/dev/null").unwrap(),
        ))
    };
    Stdio { stdin: null(), stdout: null(), stderr: null() }
}

/// The reading ends of a process's output.
pub(crate) struct Pipes {
    stdout: std::io::PipeReader,
    stderr: std::io::PipeReader,
}

/// Standard descriptors whose output is collected.
pub(crate) fn pipes() -> (Stdio, Pipes) {
    let (stdout, stdout_writer) = std::io::pipe().unwrap();
    let (stderr, stderr_writer) = std::io::pipe().unwrap();
    let stdio = Stdio {
        stdin: null().stdin,
        stdout: Some(stdout_writer.into()),
        stderr: Some(stderr_writer.into()),
    };
    (stdio, Pipes { stdout, stderr })
}

impl Pipes {
    pub(crate) fn collect(mut self, pidfd: &OwnedFd) -> Output {
        let mut stderr_reader = self.stderr;
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr_reader.read_to_string(&mut text).unwrap();
            text
        });
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let exit = wait_child(pidfd.as_fd()).unwrap();
        Output { stdout, stderr: errors.join().unwrap(), exit }
    }
}

fn make_rootfs(path: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(path.join(directory)).unwrap();
    }
    std::fs::copy(BUSYBOX, path.join("bin/busybox")).unwrap();
    for applet in [
        "cat", "chmod", "date", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
        "ionice", "ip", "ls", "mkdir", "mount", "ps", "pwd", "readlink", "rmdir", "sh", "sleep",
        "stat", "stty", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc",
    ] {
        std::os::unix::fs::symlink("busybox", path.join("bin").join(applet)).unwrap();
    }
}

fn config(id: &str) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"]
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
            },
            {
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]
            }
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq"]
        }
    })
}

/// A process for [`exec`].
pub(crate) fn shell(script: &str) -> Value {
    json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", script]
    })
}

/// Options with a terminal that comes back.
pub(crate) fn with_terminal() -> CreateOptions {
    CreateOptions { console: Console::Return, ..CreateOptions::default() }
}
