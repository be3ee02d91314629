//! What follows when a forked operation has ended.

use std::os::fd::OwnedFd;

use brig_shim_protocol::events::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecStarted, TaskOom, TaskPaused, TaskResumed,
    TaskStart,
};
use brig_shim_protocol::task::{CreateTaskResponse, DeleteResponse, StartResponse};
use brig_shim_protocol::ttrpc::{Code, Status};
use brig_shim_protocol::types::{Empty, Mount};
use brig_shim_protocol::{MemoryAtExit, Timestamp};
use prost::Message;

use super::service::task_io;
use super::{Responder, Shim};
use crate::operation::{Memory, Outcome, Reply};
use crate::poller::{Channel, EventFlags, Source, Watched};
use crate::process::{Exit, State};

/// What to do with an operation's answer.
#[derive(Debug)]
pub(super) enum Completion {
    /// A container was created.
    Create { number: u32, rootfs: Vec<Mount>, responder: Responder },
    /// A process was started.
    Start { number: u32, responder: Responder },
    /// A container was removed.
    Delete { id: String, responder: Responder },
    /// A container was frozen or thawed.
    Freeze { id: String, paused: bool, responder: Option<Responder> },
    /// A container was saved.
    Checkpoint { id: String, path: String, responder: Responder },
    /// The answer is the caller's.
    Reply(Responder),
    /// What had to be done before an end is announced was done.
    Exited(u32),
    /// Memory may have run out.
    Memory(u32),
    /// A rotated log was compressed.
    Compressed(u32),
    /// An event was published.
    Published,
    /// Nobody waits for it.
    Nothing,
}

/// Exit codes of an exec that could not be started, as shells and Docker use them.
const CANNOT_EXECUTE: u32 = 126;
const NOT_FOUND: u32 = 127;

impl Shim {
    /// Goes on where an operation was begun.
    pub(super) fn complete(&mut self, completion: Completion, (reply, fds): Outcome) {
        match completion {
            Completion::Create { number, rootfs, responder } => {
                self.created(number, rootfs, responder, (reply, fds));
            }
            Completion::Start { number, responder } => self.started(number, responder, &reply, fds),
            Completion::Delete { id, responder } => match failure(&reply) {
                Some(status) => self.respond(responder, Err(status)),
                None => self.deleted(&id, responder),
            },
            Completion::Freeze { id, paused, responder } => {
                self.frozen(id, paused, responder, &reply);
            }
            Completion::Checkpoint { id, path, responder } => {
                let answer = failure(&reply).map_or(Ok(reply.payload), Err);
                if answer.is_ok() {
                    self.publish(&TaskCheckpointed { container_id: id, checkpoint: path });
                }
                self.respond(responder, answer);
            }
            Completion::Reply(responder) => {
                let answer = failure(&reply).map_or(Ok(reply.payload), Err);
                self.respond(responder, answer);
            }
            Completion::Exited(number) => {
                if let Some(status) = failure(&reply) {
                    let message = status.message;
                    self.diagnostics.warn(format_args!("after the end of a container: {message}"));
                }
                self.announce(number, reply.memory.map(MemoryAtExit::from));
            }
            Completion::Memory(number) => self.memory_checked(number, reply.memory),
            Completion::Compressed(number) => {
                let succeeded = failure(&reply).is_none();
                if let Some(log) =
                    self.processes.get_mut(&number).and_then(|process| process.streams.log.as_mut())
                {
                    log.compressed(succeeded);
                }
                self.compress_log(number);
            }
            Completion::Published => self.published(failure(&reply)),
            Completion::Nothing => {}
        }
    }

    /// Goes on where an operation could not be begun.
    pub(super) fn refuse(&mut self, completion: Completion, status: Status) {
        self.complete(completion, (Reply::failure(status), Vec::new()));
    }

    fn created(
        &mut self,
        number: u32,
        rootfs: Vec<Mount>,
        responder: Responder,
        (reply, mut fds): Outcome,
    ) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        process.busy = false;
        let id = process.container.clone();
        if let Some(status) = failure(&reply) {
            self.respond(responder, Err(status));
            self.forget_process(number);
            if let Some(container) = self.containers.remove(&id) {
                // The runtime undoes what it began, unless it was killed meanwhile.
                let settings = container.settings;
                let work: crate::operation::Work =
                    Box::new(move |_| crate::runtime::delete(&settings, &id));
                let completion = Completion::Nothing;
                self.submit(crate::operation::Task { work, keep: Vec::new(), completion });
            }
            return;
        }
        process.pid = reply.pid;
        process.state = State::Created;
        process.phases.created_at = Some(Timestamp::now());
        let io = Some(task_io(&process.request));
        let mut bundle = String::new();
        if let Some(container) = self.containers.get_mut(&id) {
            container.private_pid_namespace = reply.private_pid_namespace;
            bundle = container.bundle.display().to_string();
        }
        if let Some(watch) = fds.pop_if(|_| reply.has_oom_watch) {
            self.watch_memory(number, watch);
        }
        if let Some(console) = fds.pop_if(|_| reply.has_console) {
            self.open_console(number, console);
        }
        let pid = reply.pid;
        self.respond(responder, Ok(CreateTaskResponse { pid }.encode_to_vec()));
        let checkpoint = String::new();
        self.publish(&TaskCreate { container_id: id, bundle, rootfs, io, checkpoint, pid });
        self.try_announce(number);
    }

    fn watch_memory(&mut self, number: u32, watch: OwnedFd) {
        let mut watch = Watched::new(&self.poller, watch, Source::Process(number, Channel::Oom));
        if watch.watch(EventFlags::IN).is_ok()
            && let Some(process) = self.processes.get_mut(&number)
        {
            process.streams.oom = Some(watch);
        }
    }

    fn started(&mut self, number: u32, responder: Responder, reply: &Reply, mut fds: Vec<OwnedFd>) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        process.busy = false;
        if let Some(status) = failure(reply) {
            if !process.is_init() {
                let code =
                    if status.code == Code::NotFound as i32 { NOT_FOUND } else { CANNOT_EXECUTE };
                process.end = Some(Exit { code, signal: None, at: Timestamp::now() });
            }
            self.respond(responder, Err(status));
            self.try_announce(number);
            return;
        }
        process.state = State::Running;
        // One that ended at once may have been reaped before the child that started it told us so.
        let now = Timestamp::now();
        process.started_at = Some(process.end.map_or(now, |exit| exit.at.min(now)));
        if !process.is_init() {
            process.pid = reply.pid;
        }
        let (pid, is_init) = (process.pid, process.is_init());
        let (container_id, exec_id) = (process.container.clone(), process.exec_id.clone());
        if let Some(console) = fds.pop_if(|_| reply.has_console) {
            self.open_console(number, console);
        }
        self.respond(responder, Ok(StartResponse { pid }.encode_to_vec()));
        if is_init {
            self.publish(&TaskStart { container_id, pid });
        } else {
            self.publish(&TaskExecStarted { container_id, exec_id, pid });
        }
        self.try_announce(number);
    }

    fn deleted(&mut self, id: &str, responder: Responder) {
        let Some(container) = self.containers.remove(id) else { return };
        let execs: Vec<u32> = self
            .processes
            .iter()
            .filter(|(number, process)| process.container == id && **number != container.init)
            .map(|(&number, _)| number)
            .collect();
        for number in execs {
            self.forget_process(number);
        }
        let response = self.forget_process(container.init);
        self.publish(&TaskDelete {
            container_id: id.to_owned(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at,
            id: String::new(),
        });
        self.respond(responder, Ok(response.encode_to_vec()));
    }

    /// Forgets a process and its streams; answers how it ended.
    pub(super) fn forget_process(&mut self, number: u32) -> DeleteResponse {
        self.finish_streams(number);
        let Some(process) = self.processes.remove(&number) else {
            return DeleteResponse::default();
        };
        let exit =
            process.end.unwrap_or_else(|| Exit { code: 0, signal: None, at: Timestamp::now() });
        for waiter in process.waiters {
            self.respond(waiter, Ok(super::exit::wait_response(exit).encode_to_vec()));
        }
        DeleteResponse { pid: process.pid, exit_status: exit.code, exited_at: Some(exit.at) }
    }

    fn frozen(&mut self, id: String, paused: bool, responder: Option<Responder>, reply: &Reply) {
        let status = failure(reply);
        if status.is_none() {
            if let Some(container) = self.containers.get_mut(&id) {
                container.paused = paused;
            }
            if paused {
                self.publish(&TaskPaused { container_id: id });
            } else {
                self.publish(&TaskResumed { container_id: id });
            }
        }
        if let Some(responder) = responder {
            self.respond(responder, status.map_or_else(|| Ok(Empty {}.encode_to_vec()), Err));
        }
    }

    fn memory_checked(&mut self, number: u32, memory: Option<Memory>) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if let Some(watch) = &mut process.streams.oom {
            let _best_effort = watch.watch(EventFlags::IN);
        }
        let id = process.container.clone();
        if memory.is_some_and(|memory| memory.oom_kills > 0) {
            self.memory_ran_out(&id);
        }
    }

    /// Tells, once, that the kernel killed something in a container for want of memory.
    pub(super) fn memory_ran_out(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !std::mem::replace(&mut container.oom_killed, true) {
            self.publish(&TaskOom { container_id: id.to_owned() });
        }
    }
}

/// The failure in a reply, if it is one.
fn failure(reply: &Reply) -> Option<Status> {
    let code = Code::try_from(reply.code).unwrap_or(Code::Unknown);
    (reply.code != 0).then(|| Status::new(code, reply.message.clone()))
}
