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
static SERIAL: Mutex<()> = Mutex::new(());

struct Container {
    _serial: MutexGuard<'static, ()>,
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
        let id = format!("brig-shim-test-{name}-{}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let mut container = Self { _serial, directory, id, socket: PathBuf::new() };
        make_bundle(&container.bundle(), &container.id, &Setup::script(script));
        let answer = String::from_utf8(container.command("start", max_version)).unwrap();
        let params = BootstrapParams::parse(&answer).unwrap();
        container.socket = params.socket_path().unwrap().to_owned();
        (container, answer)
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

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.bundle().join("shim.pid")) {
            signal(pid.parse().unwrap(), 9);
        }
        self.command("delete", None);
        assert!(!self.socket.exists());
        // Only what nobody else uses goes.
        let _in_use = fs::remove_dir("/run/containerd/s");
        let _in_use = fs::remove_dir("/run/containerd");
    }
}

#[test]
fn each_generation_of_containerd_gets_the_answer_it_understands() {
    if skip("each_generation_of_containerd_gets_the_answer_it_understands") {
        return;
    }
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
