//! The task service's methods.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use brig_shim_protocol::Timestamp;
use brig_shim_protocol::events::{TaskExecAdded, TaskIo};
use brig_shim_protocol::options::ExecOptions;
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::ttrpc::{Code, Request, Status};
use brig_shim_protocol::types::Empty;
use prost::Message;
use rustix::termios::Winsize;

use super::complete::Completion;
use super::options::checkpoint_options;
use super::{Container, PROCESSES_MAX, Responder, Shim};
use crate::logger;
use crate::operation::{Outcome, Reply, Task, Work};
use crate::process::{Process, State};
use crate::runtime::{self, Settings};
use crate::stdio::StdioRequest;
use crate::tail::Tail;

/// An answer now, none yet, or a failure.
type Answer = Result<Option<Vec<u8>>, Status>;

impl Shim {
    /// Serves a call; its answer may follow later.
    pub(super) fn serve(&mut self, request: &Request, responder: Responder) {
        let known = [task::SERVICE_V2, task::SERVICE_V3].contains(&&*request.service);
        let answer = if known {
            self.call(request, responder)
        } else {
            let message = format!("service {} is not served here", request.service);
            Err(Status::new(Code::Unimplemented, message))
        };
        match answer {
            Ok(Some(payload)) => self.respond(responder, Ok(payload)),
            Ok(None) => {}
            Err(status) => {
                let (method, message) = (&request.method, &status.message);
                self.diagnostics.debug(format_args!("{method} failed: {message}"));
                self.respond(responder, Err(status));
            }
        }
    }

    fn call(&mut self, request: &Request, responder: Responder) -> Answer {
        let payload = &*request.payload;
        match &*request.method {
            method::STATE => self.state(&decode(payload)?),
            method::CREATE => self.create(decode(payload)?, responder),
            method::START => self.start(&decode(payload)?, responder),
            method::DELETE => self.delete(&decode(payload)?, responder),
            method::PIDS => self.pids(decode(payload)?, responder),
            method::PAUSE => {
                let request: task::PauseRequest = decode(payload)?;
                self.freeze(&request.id, true, responder)
            }
            method::RESUME => {
                let request: task::ResumeRequest = decode(payload)?;
                self.freeze(&request.id, false, responder)
            }
            method::KILL => self.kill(decode(payload)?, responder),
            method::EXEC => self.exec(decode(payload)?),
            method::RESIZE_PTY => self.resize(&decode(payload)?),
            method::CLOSE_IO => self.close_io(&decode(payload)?),
            method::UPDATE => self.update(decode(payload)?, responder),
            method::WAIT => self.wait(&decode(payload)?, responder),
            method::STATS => self.stats(decode(payload)?, responder),
            method::CONNECT => self.connect(&decode(payload)?),
            method::SHUTDOWN => Ok(self.shutdown(&decode(payload)?)),
            method::CHECKPOINT => self.checkpoint(decode(payload)?, responder),
            other => Err(Status::new(Code::Unimplemented, format!("unknown method {other}"))),
        }
    }

    /// The number of a process.
    pub(super) fn find(&self, id: &str, exec_id: &str) -> Result<u32, Status> {
        let matches = |process: &Process| process.container == id && process.exec_id == exec_id;
        let found = self.processes.iter().find(|(_, process)| matches(process));
        found.map(|(&number, _)| number).ok_or_else(|| {
            let message = match exec_id {
                "" => format!("container {id} is not in this shim"),
                exec_id => format!("container {id} has no exec {exec_id}"),
            };
            Status::new(Code::NotFound, message)
        })
    }

    fn container(&self, id: &str) -> Result<&Container, Status> {
        let missing = || format!("container {id} is not in this shim");
        self.containers.get(id).ok_or_else(|| Status::new(Code::NotFound, missing()))
    }

    fn state(&self, request: &task::StateRequest) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let process = &self.processes[&number];
        let container = self.container(&request.id)?;
        let exit = process.exit();
        answer(&task::StateResponse {
            id: request.id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: process.pid,
            status: process.status(container.paused).into(),
            stdin: process.request.stdin.clone(),
            stdout: process.request.stdout.clone(),
            stderr: process.request.stderr.clone(),
            terminal: process.request.terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map(|exit| exit.at),
            exec_id: request.exec_id.clone(),
        })
    }

    fn create(&mut self, request: task::CreateTaskRequest, responder: Responder) -> Answer {
        if self.containers.contains_key(&request.id) {
            let message = format!("container {} is in this shim already", request.id);
            return Err(Status::new(Code::AlreadyExists, message));
        }
        if !request.checkpoint.is_empty() {
            return Err(Status::new(
                Code::Unimplemented,
                "restoring a checkpoint is not supported",
            ));
        }
        let mut asked = self.parse_options(request.options.as_ref())?;
        let bundle = match &*request.bundle {
            "" => self.identity.bundle.clone(),
            bundle => PathBuf::from(bundle),
        };
        asked.settings.bundle.clone_from(&bundle);
        asked.settings.version = brig_shim_protocol::bundle::VERSION;
        if !asked.shim_cgroup.is_empty() {
            runtime::join_cgroup(&asked.shim_cgroup)?;
        }
        write_settings(&bundle, &asked.settings)?;
        pass("settings-written")?;
        let stdio = StdioRequest {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            open_stdin: asked.open_stdin,
            attachable: asked.attachable,
            owner: asked.owner,
        };
        let number = self.number();
        let mut process = Process::new(&request.id, "", stdio);
        process.phases.creating_at = Some(Timestamp::now());
        self.open_streams(number, &mut process)?;
        process.streams.stdin.once = asked.stdin_once || !asked.attachable;
        if let Some(log) = &asked.log {
            self.open_log(number, &mut process, log)?;
            // Who wants no log wants none of its lines anywhere else either.
            process.streams.tail = (!log.is_none()).then(Tail::default);
        }
        process.busy = true;
        let (keep, ready) = take_ends(&mut process);
        self.processes.insert(number, process);
        self.containers.insert(
            request.id.clone(),
            Container {
                bundle: bundle.clone(),
                settings: asked.settings.clone(),
                init: number,
                paused: false,
                private_pid_namespace: false,
                attachable: asked.attachable,
                owner: asked.owner,
                oom_killed: false,
            },
        );
        let watch_memory = self.identity.containerd.is_some();
        let (id, rootfs) = (request.id, request.rootfs.clone());
        let work = after_loggers(ready, move |ends| {
            let create =
                runtime::Create { id: &id, bundle: &bundle, rootfs: &rootfs, watch_memory };
            runtime::create(&asked.settings, &create, ends)
        });
        let rootfs = request.rootfs;
        self.submit(Task {
            work,
            keep,
            completion: Completion::Create { number, rootfs, responder },
        });
        Ok(None)
    }

    fn start(&mut self, request: &task::StartRequest, responder: Responder) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let settings = self.container(&request.id)?.settings.clone();
        let Some(process) = self.processes.get_mut(&number) else { return Ok(None) };
        if process.state != State::Created || process.busy || process.end.is_some() {
            let message = format!("{} is started or has ended already", describe(process));
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        process.busy = true;
        process.phases.starting_at = Some(Timestamp::now());
        let (keep, ready) = take_ends(process);
        let spec = std::mem::take(&mut process.spec);
        let (id, is_init) = (request.id.clone(), process.is_init());
        let work = after_loggers(ready, move |ends| {
            if is_init {
                runtime::start(&settings, &id)
            } else {
                runtime::exec(&settings, &id, &spec, ends)
            }
        });
        self.submit(Task { work, keep, completion: Completion::Start { number, responder } });
        Ok(None)
    }

    fn delete(&mut self, request: &task::DeleteRequest, responder: Responder) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let process = &self.processes[&number];
        if process.busy || (process.is_alive() && process.state == State::Running) {
            let message = format!("{} is running: kill it first", describe(process));
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        if !process.is_init() {
            let response = self.forget_process(number);
            return answer(&response);
        }
        let settings = self.container(&request.id)?.settings.clone();
        let id = request.id.clone();
        let work: Work = Box::new(move |_| runtime::delete(&settings, &id));
        let completion = Completion::Delete { id: request.id.clone(), responder };
        self.submit(Task { work, keep: Vec::new(), completion });
        Ok(None)
    }

    fn pids(&mut self, request: task::PidsRequest, responder: Responder) -> Answer {
        let settings = self.container(&request.id)?.settings.clone();
        let execs = self.processes.values().filter(|process| {
            process.container == request.id && !process.is_init() && process.is_alive()
        });
        let execs: Vec<_> = execs.map(|process| (process.pid, process.exec_id.clone())).collect();
        let work: Work = Box::new(move |_| runtime::pids(&settings, &request.id, &execs));
        self.submit(Task { work, keep: Vec::new(), completion: Completion::Reply(responder) });
        Ok(None)
    }

    fn freeze(&mut self, id: &str, paused: bool, responder: Responder) -> Answer {
        self.container(id)?;
        self.submit_freeze(id, paused, Some(responder));
        Ok(None)
    }

    fn submit_freeze(&mut self, id: &str, paused: bool, responder: Option<Responder>) {
        let Some(container) = self.containers.get(id) else { return };
        let (settings, name) = (container.settings.clone(), id.to_owned());
        let work: Work = Box::new(move |_| {
            if paused {
                runtime::pause(&settings, &name)
            } else {
                runtime::resume(&settings, &name)
            }
        });
        let completion = Completion::Freeze { id: id.to_owned(), paused, responder };
        self.submit(Task { work, keep: Vec::new(), completion });
    }

    fn checkpoint(&mut self, request: task::CheckpointTaskRequest, responder: Responder) -> Answer {
        let settings = self.container(&request.id)?.settings.clone();
        let options = checkpoint_options(&request)?;
        let (id, path) = (request.id, options.criu.images.display().to_string());
        let name = id.clone();
        let work: Work = Box::new(move |_| runtime::checkpoint(&settings, &name, options));
        let completion = Completion::Checkpoint { id, path, responder };
        self.submit(Task { work, keep: Vec::new(), completion });
        Ok(None)
    }

    fn kill(&mut self, request: task::KillRequest, responder: Responder) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let container = self.container(&request.id)?;
        let (settings, paused) = (container.settings.clone(), container.paused);
        let process = &self.processes[&number];
        let signal = i32::try_from(request.signal).unwrap_or(-1);
        if request.all && process.is_init() {
            let work: Work = Box::new(move |_| runtime::kill_all(&settings, &request.id, signal));
            self.submit(Task { work, keep: Vec::new(), completion: Completion::Reply(responder) });
            return Ok(None);
        }
        if process.pid == 0 || process.end.is_some() {
            let message = format!("{} is not running: process already finished", describe(process));
            return Err(Status::new(Code::NotFound, message));
        }
        send_signal(process, signal)?;
        if paused && signal == KILL {
            // The version 1 freezer holds even a killed process.
            self.submit_freeze(&request.id, false, None);
        }
        answer(&Empty {})
    }

    fn exec(&mut self, request: task::ExecProcessRequest) -> Answer {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "an exec needs an id"));
        }
        if self.find(&request.id, &request.exec_id).is_ok() {
            let message = format!("exec {} exists already", request.exec_id);
            return Err(Status::new(Code::AlreadyExists, message));
        }
        if self.processes.len() >= PROCESSES_MAX {
            let message = format!("{PROCESSES_MAX} processes are in this shim already");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        let spec = request.spec.unwrap_or_default();
        let (open_stdin, process_json) = if spec.is::<ExecOptions>() {
            let options: ExecOptions = spec
                .unpack()
                .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
            (options.open_stdin, options.process)
        } else {
            (false, spec.value)
        };
        let stdio = StdioRequest {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            open_stdin,
            attachable: container.attachable,
            owner: container.owner,
        };
        let number = self.number();
        let mut process = Process::new(&request.id, &request.exec_id, stdio);
        self.open_streams(number, &mut process)?;
        process.streams.stdin.once = true;
        process.spec = process_json;
        process.state = State::Created;
        self.processes.insert(number, process);
        self.publish(&TaskExecAdded { container_id: request.id, exec_id: request.exec_id });
        answer(&Empty {})
    }

    fn resize(&self, request: &task::ResizePtyRequest) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let process = &self.processes[&number];
        let Some(console) = &process.streams.console else {
            let message = format!("{} has no terminal", describe(process));
            return Err(Status::new(Code::FailedPrecondition, message));
        };
        let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let (rows, columns) = (size(request.height), size(request.width));
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(console, size).map_err(|errno| {
            Status::new(Code::Unknown, format!("set the size of a terminal: {errno}"))
        })?;
        answer(&Empty {})
    }

    fn close_io(&mut self, request: &task::CloseIORequest) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        if request.stdin {
            self.close_stdin(number);
        }
        answer(&Empty {})
    }

    fn update(&mut self, request: task::UpdateTaskRequest, responder: Responder) -> Answer {
        let settings = self.container(&request.id)?.settings.clone();
        let resources = request.resources.unwrap_or_default().value;
        let work: Work = Box::new(move |_| runtime::update(&settings, &request.id, &resources));
        self.submit(Task { work, keep: Vec::new(), completion: Completion::Reply(responder) });
        Ok(None)
    }

    fn wait(&mut self, request: &task::WaitRequest, responder: Responder) -> Answer {
        let number = self.find(&request.id, &request.exec_id)?;
        let Some(process) = self.processes.get_mut(&number) else { return Ok(None) };
        match process.exit() {
            Some(exit) => {
                answer(&task::WaitResponse { exit_status: exit.code, exited_at: Some(exit.at) })
            }
            None => {
                process.waiters.push(responder);
                Ok(None)
            }
        }
    }

    fn stats(&mut self, request: task::StatsRequest, responder: Responder) -> Answer {
        let settings = self.container(&request.id)?.settings.clone();
        let work: Work = Box::new(move |_| runtime::stats(&settings, &request.id));
        self.submit(Task { work, keep: Vec::new(), completion: Completion::Reply(responder) });
        Ok(None)
    }

    fn connect(&self, request: &task::ConnectRequest) -> Answer {
        let task_pid = match self.containers.get(&request.id) {
            Some(container) => self.processes.get(&container.init).map_or(0, |init| init.pid),
            None => 0,
        };
        answer(&task::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// A shim never leaves a container that lives, whatever is asked.
    fn shutdown(&mut self, request: &task::ShutdownRequest) -> Option<Vec<u8>> {
        let alive = self.processes.values().any(|process| process.busy || process.is_alive());
        if self.containers.is_empty() || (request.now && !alive) {
            self.stop();
        }
        Some(Empty {}.encode_to_vec())
    }
}

const KILL: i32 = 9;

/// What the runtime needs of a process, and how many of these descriptors tell of loggers: the last ones.
fn take_ends(process: &mut Process) -> (Vec<OwnedFd>, usize) {
    let mut keep = std::mem::take(&mut process.ends);
    let ready = std::mem::take(&mut process.ready);
    let count = ready.len();
    keep.extend(ready);
    (keep, count)
}

/// Work that begins when the process's loggers are ready, with its ends.
fn after_loggers(loggers: usize, work: impl FnOnce(Vec<OwnedFd>) -> Outcome + 'static) -> Work {
    Box::new(move |mut kept| {
        let ready = kept.split_off(kept.len().saturating_sub(loggers));
        match ready.iter().try_for_each(logger::wait_until_ready) {
            Ok(()) => work(kept),
            Err(message) => (Reply::failure(Status::new(Code::Unavailable, message)), Vec::new()),
        }
    })
}

/// How messages name a process.
pub(super) fn describe(process: &Process) -> String {
    match &*process.exec_id {
        "" => format!("container {}", process.container),
        exec_id => format!("exec {exec_id} of container {}", process.container),
    }
}

/// A [`TaskIo`] of what was asked.
pub(super) fn task_io(request: &StdioRequest) -> TaskIo {
    TaskIo {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
}

fn answer(message: &impl Message) -> Answer {
    Ok(Some(message.encode_to_vec()))
}

/// Signals by descriptor: the process is our child and unreaped, so its number still means it.
fn send_signal(process: &Process, signal: i32) -> Result<(), Status> {
    use std::os::fd::AsFd;
    let failed = |error: &dyn std::fmt::Display, code| {
        Status::new(code, format!("send signal {signal} to {}: {error}", describe(process)))
    };
    let pid = i32::try_from(process.pid).unwrap_or(0);
    let pidfd = brig_linux::pidfd::open(pid).map_err(|error| failed(&error, Code::NotFound))?;
    brig_linux::pidfd::send_signal(pidfd.as_fd(), signal).map_err(|errno| {
        let code = match errno {
            rustix::io::Errno::SRCH => Code::NotFound,
            rustix::io::Errno::INVAL => Code::InvalidArgument,
            _ => Code::PermissionDenied,
        };
        failed(&errno, code)
    })
}

/// A point at which the robustness tests make the shim die or fail; nothing in an ordinary build.
fn pass(point: &str) -> Result<(), Status> {
    brig_failpoint::hit(point)
        .map_err(|error| Status::new(Code::Internal, format!("pass {point}: {error}")))
}

fn write_settings(bundle: &std::path::Path, settings: &Settings) -> Result<(), Status> {
    let path = bundle.join(Settings::FILE_NAME);
    let failed = |error: &dyn std::fmt::Display| {
        Status::new(Code::Internal, format!("write {}: {error}", path.display()))
    };
    let bytes = serde_json::to_vec(settings).map_err(|error| failed(&error))?;
    // Whole or not at all: `delete` reads it when this shim was killed.
    let new = path.with_extension("json.new");
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|error| failed(&error))
}
