//! The shim as containerd starts and uses it: its addresses, FIFOs and events. containerd itself is played by the test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_shim_protocol::Client;
use brig_shim_protocol::bootstrap::BootstrapParams;
use brig_shim_protocol::events::{FORWARD, ForwardRequest, SERVICE};
use brig_shim_protocol::options::RuncOptions;
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::ttrpc::{Decoder, Kind, Request, Response, encode_frame};
use brig_shim_protocol::types::{Any, Empty};
use prost::Message;
use rustix::fs::{CWD, FileType, Mode};

use crate::support::{SHIM, Setup, TIMEOUT, eventually, make_bundle, signal, skip};

const NAMESPACE: &str = "brig-shim-test";

/// Answers every event and hands out its topic.
fn serve_events(path: &Path) -> Receiver<String> {
    let listener = UnixListener::bind(path).unwrap();
    let (sender, topics) = sync_channel(100);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            for topic in serve_connection(&mut socket.unwrap()) {
                if sender.send(topic).is_err() {
                    return;
                }
            }
        }
    });
    topics
}

fn serve_connection(socket: &mut UnixStream) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut topics = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        let mut input = &buffer[..count];
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            let request = Request::decode(&*frame.payload).unwrap();
            assert_eq!((&*request.service, &*request.method), (SERVICE, FORWARD));
            let envelope = ForwardRequest::decode(&*request.payload).unwrap().envelope.unwrap();
            assert_eq!(envelope.namespace, NAMESPACE);
            topics.push(envelope.topic);
            let answer = encode_frame(Kind::Response, frame.stream, &Response::default()).unwrap();
            socket.write_all(&answer).unwrap();
        }
    }
    topics
}

/// One container at a time, since each removes the directory that all sockets share.
fn serial() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Container {
    directory: tempfile::TempDir,
    id: String,
    socket: PathBuf,
}

impl Container {
    fn command(&self, action: &str, max_version: Option<&str>) -> Vec<u8> {
        let mut command = Command::new(SHIM);
        command
            .args(["-namespace", NAMESPACE, "-address", "/nowhere.sock", "-id", &self.id, action])
            .current_dir(self.bundle())
            .env("TTRPC_ADDRESS", self.directory.path().join("events.sock"));
        match max_version {
            Some(version) => command.env("MAX_SHIM_VERSION", version),
            None => command.env_remove("MAX_SHIM_VERSION"),
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    fn start(name: &str, script: &str, max_version: Option<&str>) -> (Self, String) {
        let mut container = Self::prepare(name, &Setup::script(script));
        let answer = container.start_shim(max_version);
        (container, answer)
    }

    fn prepare(name: &str, setup: &Setup) -> Self {
        let id = format!("brig-shim-test-{name}-{}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let container = Self { directory, id, socket: PathBuf::new() };
        make_bundle(&container.bundle(), &container.id, setup);
        container
    }

    fn start_shim(&mut self, max_version: Option<&str>) -> String {
        let answer = String::from_utf8(self.command("start", max_version)).unwrap();
        let params = BootstrapParams::parse(&answer).unwrap();
        self.socket = params.socket_path().unwrap().to_owned();
        answer
    }

    /// Creates with runc's options, which name a state directory of the test's.
    fn create(&self, options: RuncOptions) -> u32 {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let root = text(&self.directory.path().join("runtime"));
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: text(&self.bundle()),
            options: Some(Any::pack(&RuncOptions { root, ..options })),
            ..Default::default()
        };
        let created: task::CreateTaskResponse =
            self.client().call(method::CREATE, &request).unwrap();
        created.pid
    }

    /// Kills, waits, deletes and asks the shim to end.
    fn remove(&self) {
        let mut client = self.client();
        let id = self.id.clone();
        let kill = task::KillRequest { id: id.clone(), signal: 9, ..Default::default() };
        let _: Empty = client.call(method::KILL, &kill).unwrap();
        let wait = task::WaitRequest { id: id.clone(), ..Default::default() };
        let end: task::WaitResponse = client.call(method::WAIT, &wait).unwrap();
        assert_eq!(end.exit_status, 137);
        let delete = task::DeleteRequest { id: id.clone(), ..Default::default() };
        let _: task::DeleteResponse = client.call(method::DELETE, &delete).unwrap();
        let shutdown = task::ShutdownRequest { id, now: false };
        let _: Empty = client.call(method::SHUTDOWN, &shutdown).unwrap();
    }

    fn client(&self) -> Client {
        let client = Client::connect(&self.socket).unwrap();
        client.set_timeout(Some(TIMEOUT)).unwrap();
        client
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        path
    }
}

/// Only what nobody else uses goes, nor is about to: a shim that starts holds the directory's lock. Tests of other test
/// programs start shims at the same time.
fn remove_unused_directories() {
    if let Ok(directory) = fs::File::open("/run/containerd/s")
        && directory.lock().is_ok()
    {
        let _in_use = fs::remove_dir("/run/containerd/s");
        let _in_use = fs::remove_dir("/run/containerd");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.bundle().join("shim.pid")) {
            signal(pid.parse().unwrap(), 9);
        }
        self.command("delete", None);
        assert!(!self.socket.exists());
        remove_unused_directories();
    }
}

#[test]
fn each_generation_of_containerd_gets_the_answer_it_understands() {
    if skip("each_generation_of_containerd_gets_the_answer_it_understands") {
        return;
    }
    let _serial = serial();
    for (max_version, version) in [(None, None), (Some("2"), Some(2)), (Some("3"), Some(3))] {
        let (container, answer) = Container::start("bootstrap", "true", max_version);
        assert_eq!(answer.starts_with('{'), version.is_some(), "{answer}");
        let params = BootstrapParams::parse(&answer).unwrap();
        assert_eq!(params.version, version.unwrap_or(2));
        assert!(answer.contains("unix:///run/containerd/s/"));
        if version.is_none() {
            let address = fs::read_to_string(container.bundle().join("address")).unwrap();
            assert_eq!(address, answer);
        }
        let request = task::ConnectRequest { id: container.id.clone() };
        let _: task::ConnectResponse = container.client().call(method::CONNECT, &request).unwrap();
    }
}

#[test]
fn fifos_carry_the_streams_and_events_tell_the_story() {
    if skip("fifos_carry_the_streams_and_events_tell_the_story") {
        return;
    }
    let _serial = serial();
    let (container, _) = Container::start("fifos", "cat; echo error >&2; exit 3", None);
    let topics = serve_events(&container.directory.path().join("events.sock"));
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| container.fifo(name));
    let readers = [&stdout, &stderr].map(|path| {
        let path = path.clone();
        std::thread::spawn(move || fs::read(path).unwrap())
    });
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let root = text(&container.directory.path().join("runtime"));
    let options = RuncOptions { root, ..Default::default() };
    let request = task::CreateTaskRequest {
        id: container.id.clone(),
        bundle: text(&container.bundle()),
        stdin: text(&stdin),
        stdout: text(&stdout),
        stderr: text(&stderr),
        options: Some(Any::pack(&options)),
        ..Default::default()
    };
    let mut client = container.client();
    let id = container.id.clone();
    let _: task::CreateTaskResponse = client.call(method::CREATE, &request).unwrap();
    let start = task::StartRequest { id: id.clone(), ..Default::default() };
    let _: task::StartResponse = client.call(method::START, &start).unwrap();
    // More than the FIFOs and pipes hold together.
    let input = "0123456789".repeat(100_000);
    fs::write(&stdin, &input).unwrap();
    let close = task::CloseIORequest { id: id.clone(), stdin: true, ..Default::default() };
    let _: Empty = client.call(method::CLOSE_IO, &close).unwrap();
    let wait = task::WaitRequest { id: id.clone(), ..Default::default() };
    let end: task::WaitResponse = client.call(method::WAIT, &wait).unwrap();
    assert_eq!(end.exit_status, 3);
    let [output, error] = readers.map(|reader| reader.join().unwrap());
    assert!(output == input.as_bytes());
    assert_eq!(error, b"error\n");
    let delete = task::DeleteRequest { id: id.clone(), ..Default::default() };
    let _: task::DeleteResponse = client.call(method::DELETE, &delete).unwrap();
    let shutdown = task::ShutdownRequest { id, now: false };
    let _: Empty = client.call(method::SHUTDOWN, &shutdown).unwrap();
    for topic in ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
        assert_eq!(topics.recv_timeout(TIMEOUT).unwrap(), topic);
    }
    eventually("the shim removes its socket", || !container.socket.exists());
}

#[test]
fn containers_of_one_pod_share_a_shim() {
    if skip("containers_of_one_pod_share_a_shim") {
        return;
    }
    let pod = format!("pod-{}", std::process::id());
    let setup = || {
        let pod = pod.clone();
        Setup::script("exec sleep 1000").edit(move |config| {
            config["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": pod});
        })
    };
    let _serial = serial();
    let mut sandbox = Container::prepare("sandbox", &setup());
    let mut member = Container::prepare("member", &setup());
    // Both at once, as the kubelet's threads do: one starts the shim, the other finds it.
    let answers = std::thread::scope(|scope| {
        let threads = [&mut sandbox, &mut member]
            .map(|container| scope.spawn(|| container.start_shim(Some("2"))));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(answers[0], answers[1]);
    let shims = [&sandbox, &member].map(|container| container.bundle().join("shim.pid").exists());
    assert_eq!(shims.into_iter().filter(|started| *started).count(), 1);
    for container in [&sandbox, &member] {
        container.create(RuncOptions::default());
        let start = task::StartRequest { id: container.id.clone(), ..Default::default() };
        let _: task::StartResponse = container.client().call(method::START, &start).unwrap();
    }
    sandbox.remove();
    // What is left of the first goes with its bundle, and the shim goes on.
    sandbox.command("delete", None);
    let state = task::StateRequest { id: member.id.clone(), ..Default::default() };
    let state: task::StateResponse = member.client().call(method::STATE, &state).unwrap();
    assert_eq!(state.status(), brig_shim_protocol::types::Status::Running);
    member.remove();
    eventually("the shim ends", || !member.socket.exists());
}

#[test]
fn runc_s_options_are_honoured_or_refused_by_name() {
    use std::os::unix::fs::MetadataExt;
    if skip("runc_s_options_are_honoured_or_refused_by_name") {
        return;
    }
    let _serial = serial();
    let (container, _) = Container::start("options", "exec sleep 1000", None);
    let refused = RuncOptions { criu_image_path: "/images".into(), ..Default::default() };
    let request = task::CreateTaskRequest {
        id: container.id.clone(),
        options: Some(Any::pack(&refused)),
        ..Default::default()
    };
    let error = container.client().call::<_, Empty>(method::CREATE, &request).unwrap_err();
    assert!(error.to_string().contains("criu_image_path"), "{error}");
    let out = container.fifo("out");
    let shim_cgroup = format!("brig-shim-test-cgroup-{}", std::process::id());
    let cgroup = unified().join(&shim_cgroup);
    fs::create_dir(&cgroup).unwrap();
    let root = container.directory.path().join("runtime").to_str().unwrap().to_owned();
    let options = RuncOptions {
        root,
        io_uid: 4321,
        io_gid: 8765,
        shim_cgroup: format!("/{shim_cgroup}"),
        ..Default::default()
    };
    let request = task::CreateTaskRequest {
        id: container.id.clone(),
        stdout: out.to_str().unwrap().to_owned(),
        options: Some(Any::pack(&options)),
        ..Default::default()
    };
    let created: task::CreateTaskResponse =
        container.client().call(method::CREATE, &request).unwrap();
    let pipe = fs::metadata(format!("/proc/{}/fd/1", created.pid)).unwrap();
    // The user is the process's own by now: a runtime sees to that, and leaves the group.
    assert_eq!(pipe.gid(), 8765);
    let shim = fs::read_to_string(container.bundle().join("shim.pid")).unwrap();
    // The child that created the container may take a moment to go.
    eventually("the shim is alone in its cgroup", || {
        fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().trim() == shim
    });
    container.remove();
    eventually("the shim ends", || !container.socket.exists());
    eventually("its cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
}

/// Where cgroup2 is mounted.
fn unified() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    PathBuf::from(line.split(' ').nth(4).unwrap())
}

#[test]
fn a_shim_starts_though_another_s_end_takes_the_sockets_directory_away() {
    if skip("a_shim_starts_though_another_s_end_takes_the_sockets_directory_away") {
        return;
    }
    let _serial = serial();
    // Hung up when the last shim has started, or one has not.
    let (going_on, done) = sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let _going_on = going_on;
        scope.spawn(move || {
            while done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                remove_unused_directories();
            }
        });
        for _ in 0..5 {
            let (container, _) = Container::start("removed", "true", Some("3"));
            let request = task::ConnectRequest { id: container.id.clone() };
            let _: task::ConnectResponse =
                container.client().call(method::CONNECT, &request).unwrap();
        }
    });
}
