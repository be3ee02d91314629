//! The asynchronous side of the shim protocol: starting a shim, speaking to it, and reading what a dead one left.
//!
//! ```text
//! <state>/containers/<id>/     the bundle and the shim's working directory
//!   shim.sock                  ttrpc task API, one connection per client here
//!   io.sock                    attach
//!   exit.json                  how the container ended; durable before Wait is answered
//! ```
//!
//! A shim outlives the engine. The engine never kills one: it asks for Delete and Shutdown when the container ended.
//! Calls are limited by [`CALL_TIMEOUT`], except Wait, which lasts as long as the process.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use brig_shim_protocol::attach::{self, AttachReply, AttachRequest};
use brig_shim_protocol::bootstrap::BootstrapParams;
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::types::{Any, Empty, Mount};
use brig_shim_protocol::{ExitRecord, options};
use prost::Message;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::proto::{Code, Request};

use crate::container::Account;
use crate::error::{Error, ErrorKind, Result};

/// How long a shim may take to answer anything but Wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the `start` and `delete` commands may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes kept of what those commands print.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// containerd's namespace for everything of ours.
const NAMESPACE: &str = "brig";

/// Where a shim works.
#[derive(Debug, Clone)]
pub(crate) struct ShimPlace {
    /// The shim program.
    pub(crate) program: PathBuf,
    /// The bundle directory.
    pub(crate) bundle: PathBuf,
    /// The container.
    pub(crate) id: String,
}

/// A connection to the shim of one container.
#[derive(Clone)]
pub(crate) struct Shim {
    client: Client,
    place: ShimPlace,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shim").field("place", &self.place).finish_non_exhaustive()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// The signal that ended it, where the shim wrote that down.
    pub(crate) signal: Option<u32>,
    pub(crate) oom_killed: bool,
    /// RFC 3339.
    pub(crate) at: String,
    /// Why the code is not the process's own; empty when it is.
    pub(crate) error: String,
    pub(crate) account: Account,
    /// Nobody saw the end, which is known from what is no longer there.
    pub(crate) unseen: bool,
}

impl ShimPlace {
    /// Runs the shim's `start` command, which leaves a shim behind, and connects to that.
    pub(crate) async fn start(&self) -> Result<Shim> {
        let output = self.command("start").await?;
        BootstrapParams::parse(&output).map_err(|source| {
            Error::new(ErrorKind::Io, format!("start the shim {}", self.program.display()))
                .with_source(source)
        })?;
        self.connect().await
    }

    /// Connects to the shim of an earlier start.
    pub(crate) async fn connect(&self) -> Result<Shim> {
        let stream = connect(&self.bundle, "shim.sock").await?;
        Ok(Shim { client: Client::new(Socket::from(stream)), place: self.clone() })
    }

    /// Cleans up after a shim that died: kills what is left of the container and removes its run-time state.
    pub(crate) async fn delete(&self) -> Result<()> {
        self.command("delete").await.map(drop)
    }

    /// The exit record, if the container ended.
    pub(crate) fn exit_record(&self) -> Option<Exit> {
        let record = ExitRecord::read(&self.bundle).ok()?;
        Some(Exit {
            code: i32::try_from(record.exit_code).unwrap_or(255),
            signal: record.signal,
            oom_killed: record.oom_killed,
            at: record.exited_at.to_string(),
            account: Account::of(&record),
            error: record.error.unwrap_or_default(),
            unseen: false,
        })
    }

    /// The shim's process, to see it end. Right while the shim answers: its number cannot be another's then.
    pub(crate) fn process(&self) -> Option<OwnedFd> {
        let text = std::fs::read_to_string(self.bundle.join("shim.pid")).ok()?;
        let pid = rustix::process::Pid::from_raw(text.trim().parse().ok()?)?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    }

    /// Attaches to the container's process, or to the exec `exec_id`.
    pub(crate) async fn attach(&self, request: &AttachRequest) -> Result<(UnixStream, bool)> {
        let what = || format!("attach to container {}", self.id);
        let mut stream = connect(&self.bundle, attach::SOCKET_NAME).await?;
        let mut line = serde_json::to_vec(request)
            .map_err(|source| Error::new(ErrorKind::InvalidInput, what()).with_source(source))?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(|source| Error::io(what(), source))?;
        let mut reply = Vec::new();
        // One byte at a time, so that no output is taken with the header.
        loop {
            let byte = stream.read_u8().await.map_err(|source| Error::io(what(), source))?;
            if byte == b'\n' {
                break;
            }
            if reply.len() >= attach::HEADER_LENGTH_MAX {
                return Err(Error::new(
                    ErrorKind::Integrity,
                    format!("{}: the shim's answer has no end", what()),
                ));
            }
            reply.push(byte);
        }
        match attach::parse_header(&reply) {
            Ok(AttachReply::Attached { tty }) => Ok((stream, tty)),
            Ok(AttachReply::Refused { error }) => {
                Err(Error::conflict(format!("{}: {error}", what())))
            }
            Err(source) => Err(Error::new(ErrorKind::Integrity, what()).with_source(source)),
        }
    }

    async fn command(&self, action: &str) -> Result<String> {
        let what = format!("run {} {action}", self.program.display());
        let child = Command::new(&self.program)
            .args(["-namespace", NAMESPACE, "-id", &self.id, "-address", "", "-bundle"])
            .arg(&self.bundle)
            .arg(action)
            .current_dir(&self.bundle)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::io(what.clone(), source))?;
        let output = tokio::time::timeout(COMMAND_TIMEOUT, wait_with_output(child))
            .await
            .map_err(|_| {
                Error::new(ErrorKind::Io, format!("{what}: no answer within {COMMAND_TIMEOUT:?}"))
            })?
            .map_err(|source| Error::io(what.clone(), source))?;
        let (status, stdout, stderr) = output;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&stderr);
        Err(Error::new(ErrorKind::Io, format!("{what}: {status}: {}", words.trim())))
    }
}

type Output = (std::process::ExitStatus, Vec<u8>, Vec<u8>);

/// Waits for the command itself, not for its pipes to close: the shim that `start` leaves behind may hold them.
async fn wait_with_output(mut child: tokio::process::Child) -> std::io::Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = child.wait().await?;
    let drain = Duration::from_millis(200);
    if let Some(pipe) = child.stdout.take() {
        let mut pipe = pipe.take(OUTPUT_BYTES_MAX as u64);
        let _ = tokio::time::timeout(drain, pipe.read_to_end(&mut stdout)).await;
    }
    if let Some(pipe) = child.stderr.take().filter(|_| !status.success()) {
        let mut pipe = pipe.take(OUTPUT_BYTES_MAX as u64);
        let _ = tokio::time::timeout(drain, pipe.read_to_end(&mut stderr)).await;
    }
    Ok((status, stdout, stderr))
}

/// Connects to a socket in a directory whose path may be longer than a socket address can hold.
async fn connect(directory: &Path, name: &str) -> Result<UnixStream> {
    let what = || format!("connect to {}", directory.join(name).display());
    let fd: OwnedFd = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|source| Error::io(what(), source.into()))?;
    let path = format!("/proc/self/fd/{}/{name}", fd.as_raw_fd());
    let stream = tokio::time::timeout(CALL_TIMEOUT, UnixStream::connect(path))
        .await
        .map_err(|_| Error::new(ErrorKind::Io, format!("{}: no answer", what())))?
        .map_err(|source| Error::io(what(), source))?;
    drop(fd);
    Ok(stream)
}

impl Shim {
    /// Where this shim works.
    pub(crate) fn place(&self) -> &ShimPlace {
        &self.place
    }

    /// Makes the container; its process waits for [`Shim::start`].
    pub(crate) async fn create(
        &self,
        rootfs: Vec<Mount>,
        terminal: bool,
        options: &options::Options,
    ) -> Result<u32> {
        let request = task::CreateTaskRequest {
            id: self.place.id.clone(),
            bundle: self.place.bundle.display().to_string(),
            rootfs,
            terminal,
            options: Some(Any::pack(options)),
            ..task::CreateTaskRequest::default()
        };
        let response: task::CreateTaskResponse = self.call(method::CREATE, &request).await?;
        Ok(response.pid)
    }

    /// Starts the container's process, or the exec `exec_id`; returns its process id.
    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32> {
        let request = task::StartRequest { id: self.place.id.clone(), exec_id: exec_id.to_owned() };
        let response: task::StartResponse = self.call(method::START, &request).await?;
        Ok(response.pid)
    }

    /// The state of a process.
    pub(crate) async fn state(&self, exec_id: &str) -> Result<task::StateResponse> {
        let request = task::StateRequest { id: self.place.id.clone(), exec_id: exec_id.to_owned() };
        self.call(method::STATE, &request).await
    }

    /// Sends a signal.
    pub(crate) async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let id = self.place.id.clone();
        let request = task::KillRequest { id, exec_id: exec_id.to_owned(), signal, all };
        self.call::<_, Empty>(method::KILL, &request).await.map(drop)
    }

    /// Freezes all processes.
    pub(crate) async fn pause(&self) -> Result<()> {
        let request = task::PauseRequest { id: self.place.id.clone() };
        self.call::<_, Empty>(method::PAUSE, &request).await.map(drop)
    }

    /// Thaws all processes.
    pub(crate) async fn resume(&self) -> Result<()> {
        let request = task::ResumeRequest { id: self.place.id.clone() };
        self.call::<_, Empty>(method::RESUME, &request).await.map(drop)
    }

    /// Prepares another process.
    pub(crate) async fn exec(
        &self,
        exec_id: &str,
        terminal: bool,
        spec: &options::ExecOptions,
    ) -> Result<()> {
        let request = task::ExecProcessRequest {
            id: self.place.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal,
            spec: Some(Any::pack(spec)),
            ..task::ExecProcessRequest::default()
        };
        self.call::<_, Empty>(method::EXEC, &request).await.map(drop)
    }

    /// Sets a terminal's size.
    pub(crate) async fn resize(&self, exec_id: &str, width: u16, height: u16) -> Result<()> {
        let request = task::ResizePtyRequest {
            id: self.place.id.clone(),
            exec_id: exec_id.to_owned(),
            width: width.into(),
            height: height.into(),
        };
        self.call::<_, Empty>(method::RESIZE_PTY, &request).await.map(drop)
    }

    /// The processes in the container, in the host's numbering.
    pub(crate) async fn pids(&self) -> Result<Vec<u32>> {
        let request = task::PidsRequest { id: self.place.id.clone() };
        let response: task::PidsResponse = self.call(method::PIDS, &request).await?;
        Ok(response.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Resource use, as a containerd metrics message.
    pub(crate) async fn stats(&self) -> Result<Any> {
        let request = task::StatsRequest { id: self.place.id.clone() };
        let response: task::StatsResponse = self.call(method::STATS, &request).await?;
        response
            .stats
            .ok_or_else(|| Error::new(ErrorKind::Integrity, "the shim gave no statistics"))
    }

    /// Changes limits; `resources` is OCI LinuxResources as JSON.
    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<()> {
        let any = Any { type_url: options::LINUX_RESOURCES_TYPE_URL.to_owned(), value: resources };
        let request = task::UpdateTaskRequest {
            id: self.place.id.clone(),
            resources: Some(any),
            ..Default::default()
        };
        self.call::<_, Empty>(method::UPDATE, &request).await.map(drop)
    }

    /// Waits until a process has ended, however long that takes.
    pub(crate) async fn wait(&self, exec_id: &str) -> Result<Exit> {
        let request = task::WaitRequest { id: self.place.id.clone(), exec_id: exec_id.to_owned() };
        let response: task::WaitResponse = self.call_within(method::WAIT, &request, None).await?;
        let recorded = if exec_id.is_empty() { self.place.exit_record() } else { None };
        Ok(recorded.unwrap_or_else(|| Exit {
            code: i32::try_from(response.exit_status).unwrap_or(255),
            at: response.exited_at.map(|at| at.to_string()).unwrap_or_else(crate::container::now),
            ..Exit::default()
        }))
    }

    /// Removes an ended process; for the container itself also its cgroup and mounts.
    pub(crate) async fn delete(&self, exec_id: &str) -> Result<()> {
        let request =
            task::DeleteRequest { id: self.place.id.clone(), exec_id: exec_id.to_owned() };
        self.call::<_, task::DeleteResponse>(method::DELETE, &request).await.map(drop)
    }

    /// Asks the shim to end.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        let request = task::ShutdownRequest { id: self.place.id.clone(), now: false };
        self.call::<_, Empty>(method::SHUTDOWN, &request).await.map(drop)
    }

    async fn call<Q: Message, R: Message + Default>(&self, method: &str, request: &Q) -> Result<R> {
        self.call_within(method, request, Some(CALL_TIMEOUT)).await
    }

    async fn call_within<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R> {
        let call = Request {
            service: task::SERVICE_V3.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: timeout
                .map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)),
            ..Request::default()
        };
        let response =
            self.client.request(call).await.map_err(|source| self.failed(method, source))?;
        R::decode(response.payload.as_slice()).map_err(|source| {
            Error::new(ErrorKind::Integrity, format!("read the shim's answer to {method}"))
                .with_source(source)
        })
    }

    /// A status of the shim keeps its words, which users read; a broken connection names the shim.
    fn failed(&self, method: &str, source: ttrpc::Error) -> Error {
        let ttrpc::Error::RpcStatus(status) = &source else {
            let what = format!("ask the shim of container {} for {method}", self.place.id);
            return Error::new(ErrorKind::Io, what).with_source(source);
        };
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::AlreadyExists,
            Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidInput,
            Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
            Code::Unimplemented => ErrorKind::Unsupported,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            Code::ResourceExhausted => ErrorKind::Exhausted,
            Code::DataLoss => ErrorKind::Integrity,
            _ => ErrorKind::Io,
        };
        Error::new(kind, status.message.clone())
    }
}
