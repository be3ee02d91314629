//! Starts real shims with real containers of busybox, and cleans up after them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use brig_shim_protocol::attach::{self, AttachRequest};
use brig_shim_protocol::bootstrap::BootstrapParams;
use brig_shim_protocol::options::{ExecOptions, LogOptions, Options};
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::types::{Any, Empty};
use brig_shim_protocol::{Client, ExitRecord};
use serde_json::{Value, json};

/// The program under test.
pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-brig-v1");

/// No call of these tests takes longer unless something hangs.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// True, and says so, when a test cannot run here.
pub(crate) fn skip(name: &str) -> bool {
    let why = if !rustix_is_root() {
        "not root"
    } else if !Path::new(BUSYBOX).exists() {
        "no /bin/busybox (Debian: busybox-static)"
    } else {
        return false;
    };
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
    true
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const BUSYBOX: &str = "/bin/busybox";

/// A bundle with a shim.
pub(crate) struct Shim {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) pid: i32,
}

/// What to run and how.
pub(crate) struct Setup {
    pub(crate) script: String,
    pub(crate) terminal: bool,
    pub(crate) options: Options,
    pub(crate) edit: Box<dyn Fn(&mut Value)>,
}

impl Setup {
    /// Runs a shell script.
    pub(crate) fn script(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            terminal: false,
            options: Options::default(),
            edit: Box::new(|_| {}),
        }
    }

    pub(crate) fn terminal(self) -> Self {
        Self { terminal: true, ..self }
    }

    pub(crate) fn stdin(mut self, once: bool) -> Self {
        self.options.open_stdin = true;
        self.options.stdin_once = once;
        self
    }

    pub(crate) fn log(mut self, max_size_bytes: u64, max_files: u32, compress: bool) -> Self {
        self.options.log = Some(LogOptions {
            driver: "json-file".into(),
            path: String::new(),
            max_size_bytes,
            max_files,
            compress,
            ..Default::default()
        });
        self
    }

    pub(crate) fn runtime(mut self, program: &Path) -> Self {
        self.options.runtime_binary = program.to_str().unwrap().to_owned();
        self
    }

    pub(crate) fn edit(self, edit: impl Fn(&mut Value) + 'static) -> Self {
        Self { edit: Box::new(edit), ..self }
    }
}

impl Shim {
    /// Makes a bundle, starts a shim for it and creates the container.
    pub(crate) fn create(setup: Setup) -> Self {
        let shim = Self::start_for(&setup);
        shim.create_container(setup);
        shim
    }

    /// Makes a bundle and starts a shim for it.
    pub(crate) fn start_for(setup: &Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("brig-shim-test-{}-{number}", std::process::id());
        let bundle = directory.path().join("bundle");
        make_bundle(&bundle, &id, setup);
        let output = run_shim(&bundle, &id, "start");
        let params = BootstrapParams::parse(std::str::from_utf8(&output).unwrap()).unwrap();
        assert_eq!((params.version, &*params.protocol), (3, "ttrpc"));
        let socket = params.socket_path().unwrap().to_owned();
        let pid = fs::read_to_string(bundle.join("shim.pid")).unwrap().parse().unwrap();
        Self { directory, id, bundle, socket, pid }
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.path().join("log.json")
    }

    pub(crate) fn create_container(&self, setup: Setup) {
        self.try_create(setup).unwrap();
    }

    pub(crate) fn try_create(&self, setup: Setup) -> brig_shim_protocol::Result<u32> {
        let mut options = setup.options;
        options.runtime_root = self.directory.path().join("runtime").to_str().unwrap().to_owned();
        if let Some(log) = &mut options.log {
            log.path = self.log_path().to_str().unwrap().to_owned();
        }
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_str().unwrap().to_owned(),
            terminal: setup.terminal,
            options: Some(Any::pack(&options)),
            ..Default::default()
        };
        let response: task::CreateTaskResponse = self.client().call(method::CREATE, &request)?;
        Ok(response.pid)
    }

    pub(crate) fn client(&self) -> Client {
        let client = Client::connect(&self.socket).unwrap();
        client.set_timeout(Some(TIMEOUT)).unwrap();
        client
    }

    pub(crate) fn start(&self) -> u32 {
        self.start_process("").unwrap()
    }

    pub(crate) fn start_process(&self, exec_id: &str) -> brig_shim_protocol::Result<u32> {
        let request = task::StartRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        let response: task::StartResponse = self.client().call(method::START, &request)?;
        Ok(response.pid)
    }

    pub(crate) fn exec(&self, exec_id: &str, script: &str, terminal: bool, open_stdin: bool) {
        let process = json!({
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
        });
        self.exec_process(exec_id, &process, terminal, open_stdin);
    }

    pub(crate) fn exec_process(
        &self,
        exec_id: &str,
        process: &Value,
        terminal: bool,
        open_stdin: bool,
    ) {
        let process = serde_json::to_vec(process).unwrap();
        let request = task::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal,
            spec: Some(Any::pack(&ExecOptions { open_stdin, process })),
            ..Default::default()
        };
        let _: Empty = self.client().call(method::EXEC, &request).unwrap();
    }

    pub(crate) fn wait(&self, exec_id: &str) -> u32 {
        let request = task::WaitRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        let response: task::WaitResponse = self.client().call(method::WAIT, &request).unwrap();
        response.exit_status
    }

    pub(crate) fn kill(&self, exec_id: &str, signal: u32) {
        let request = task::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            signal,
            all: false,
        };
        let _: Empty = self.client().call(method::KILL, &request).unwrap();
    }

    pub(crate) fn state(&self, exec_id: &str) -> task::StateResponse {
        let request = task::StateRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        self.client().call(method::STATE, &request).unwrap()
    }

    pub(crate) fn delete(&self, exec_id: &str) -> brig_shim_protocol::Result<task::DeleteResponse> {
        let request = task::DeleteRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        self.client().call(method::DELETE, &request)
    }

    pub(crate) fn shutdown(&self) {
        let request = task::ShutdownRequest { id: self.id.clone(), now: false };
        let _: Empty = self.client().call(method::SHUTDOWN, &request).unwrap();
    }

    /// Attaches to all streams.
    pub(crate) fn attach(&self, exec_id: &str) -> UnixStream {
        self.attach_with(&AttachRequest {
            exec_id: exec_id.to_owned(),
            stdin: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        })
    }

    pub(crate) fn attach_with(&self, request: &AttachRequest) -> UnixStream {
        let (stream, _tty) =
            attach::attach(&self.bundle.join(attach::SOCKET_NAME), request).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    pub(crate) fn exit_record(&self) -> ExitRecord {
        ExitRecord::read(&self.bundle).unwrap()
    }

    /// Deletes and shuts down, and sees the shim go.
    pub(crate) fn end(&self) {
        self.delete("").unwrap();
        self.shutdown();
        eventually("the shim ends", || !is_alive(self.pid));
        assert!(!self.socket.exists());
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if is_alive(self.pid) {
            if std::thread::panicking() {
                let log = fs::read_to_string(self.bundle.join("shim.log")).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "the shim's own log:\n{log}");
            }
            signal(self.pid, 9);
        }
        run_shim(&self.bundle, &self.id, "delete");
    }
}

/// Runs one of the shim's commands as brigd does.
pub(crate) fn run_shim(bundle: &Path, id: &str, action: &str) -> Vec<u8> {
    let output = Command::new(SHIM)
        .args(["-namespace", "brig", "-id", id, "-address", "", action])
        .current_dir(bundle)
        .env_remove("TTRPC_ADDRESS")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{action}: {error}");
    output.stdout
}

pub(crate) fn signal(pid: i32, number: i32) {
    use std::os::fd::AsFd;
    if let Ok(pidfd) = brig_linux::pidfd::open(pid) {
        let _gone = brig_linux::pidfd::send_signal(pidfd.as_fd(), number);
    }
}

/// True while the process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z")
}

/// Polls until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads output frames until the end; answers what came on standard output, error and from the shim itself.
pub(crate) fn read_frames(stream: &mut UnixStream) -> [Vec<u8>; 3] {
    let mut outputs = [const { Vec::new() }; 3];
    loop {
        let mut header = [0; 8];
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return outputs,
            Err(error) => panic!("read a frame: {error}"),
        }
        let length = u32::from_be_bytes(header[4..].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        outputs[usize::from(header[0]) - 1].extend(payload);
    }
}

/// Reads raw output until it contains `text`.
pub(crate) fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = stream.read(&mut byte).unwrap();
        assert!(count > 0, "ended before {text:?}: {:?}", String::from_utf8_lossy(&seen));
        seen.extend(byte);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

pub(crate) fn close_input(stream: &mut UnixStream) {
    stream.flush().unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
}

/// All log entries of rotated files and the current one, oldest first.
pub(crate) fn log_entries(path: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for number in (1..100).rev() {
        let plain = PathBuf::from(format!("{}.{number}", path.display()));
        let packed = PathBuf::from(format!("{}.{number}.gz", path.display()));
        if plain.exists() {
            files.push(fs::read(plain).unwrap());
        } else if packed.exists() {
            let mut bytes = Vec::new();
            let file = fs::File::open(packed).unwrap();
            flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            files.push(bytes);
        }
    }
    files.push(fs::read(path).unwrap());
    let mut entries = Vec::new();
    for line in files.concat().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).unwrap();
        let field = |name: &str| value[name].as_str().unwrap().to_owned();
        brig_shim_protocol::Timestamp::parse(&field("time")).unwrap();
        entries.push((field("stream"), field("log")));
    }
    entries
}

pub(crate) fn joined(entries: &[(String, String)], stream: &str) -> String {
    entries.iter().filter(|entry| entry.0 == stream).map(|entry| &*entry.1).collect()
}

pub(crate) fn make_bundle(bundle: &Path, id: &str, setup: &Setup) {
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).unwrap();
    for directory in ["proc", "dev", "sys", "tmp"] {
        fs::create_dir(bundle.join("rootfs").join(directory)).unwrap();
    }
    fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": setup.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", setup.script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_SETUID"],
                "effective": ["CAP_KILL", "CAP_SETUID"],
                "permitted": ["CAP_KILL", "CAP_SETUID"],
            },
        },
        "root": {"path": "rootfs"},
        "hostname": "shim",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network"},
            ],
        },
    });
    (setup.edit)(&mut config);
    fs::write(bundle.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
}
