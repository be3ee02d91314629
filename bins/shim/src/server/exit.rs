//! Ends: reaping, what must be done before an end is told, and telling it.
//!
//! The order is fixed: all that the process wrote is read, logged and queued for its clients; what init leaves behind
//! is killed; `exit.json` is durable; then Wait is answered and the event published. A process that something else
//! keeps the streams of (a grandchild that holds a pipe) does not delay its own end: its streams are read on for
//! [`LINGER`] before clients are told that it is over, and for as long as they are open for the log.

use std::time::Duration;

use brig_shim_protocol::attach::Stream;
use brig_shim_protocol::events::TaskExit;
use brig_shim_protocol::task::WaitResponse;
use brig_shim_protocol::{ExitRecord, MemoryAtExit, Phases, Timestamp};
use prost::Message;
use rustix::process::{WaitOptions, WaitStatus};

use super::complete::Completion;
use super::{Responder, Shim};
use crate::operation::{Task, Work};
use crate::poller::EventFlags;
use crate::process::{Exit, State};
use crate::runtime;
use crate::tail::Tail;
use crate::timers::Timer;

/// How long clients of an ended process wait for whoever still holds its streams, as in Docker.
const LINGER: Duration = Duration::from_secs(2);

impl Shim {
    /// Reaps every child that has ended.
    ///
    /// A process that an operation started becomes ours only when the operation's own process has ended, so both may
    /// be found at once and in any order: operations are looked at first.
    pub(super) fn reap(&mut self) {
        let mut ended = Vec::new();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            ended.push((pid.as_raw_nonzero().get().unsigned_abs(), status));
        }
        let mut completed = Vec::new();
        ended.retain(|&(pid, _)| match self.operations.complete(pid) {
            Some(operation) => {
                completed.push(operation);
                false
            }
            None => true,
        });
        for (completion, outcome) in completed {
            self.complete(completion, outcome);
        }
        for (pid, status) in ended {
            self.process_ended(pid, status);
        }
    }

    fn process_ended(&mut self, pid: u32, status: WaitStatus) {
        let found = self
            .processes
            .iter_mut()
            .find(|(_, process)| process.pid == pid && process.end.is_none());
        // Anything else is an orphan of some container; reaping it was all it needed.
        let Some((&number, process)) = found else { return };
        process.end = Some(exit_of(status));
        let _only_fatal_here = brig_failpoint::hit("exit-reaped");
        self.try_announce(number);
    }

    /// Announces the end of a process as soon as nothing stands against it.
    pub(super) fn try_announce(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if process.busy || process.end.is_none() || process.state == State::Stopped {
            return;
        }
        let container = self.containers.get(&process.container);
        match container.filter(|_| process.is_init() && process.pid != 0) {
            Some(container) => {
                process.busy = true;
                let (settings, id) = (container.settings.clone(), process.container.clone());
                let kill_rest = !container.private_pid_namespace;
                let work: Work = Box::new(move |_| runtime::after_exit(&settings, &id, kill_rest));
                self.submit(Task {
                    work,
                    keep: Vec::new(),
                    completion: Completion::Exited(number),
                });
            }
            None => self.announce(number, None),
        }
    }

    /// Tells the end of a process; `memory` is what its container's came to, if it is init.
    pub(super) fn announce(&mut self, number: u32, memory: Option<MemoryAtExit>) {
        self.drain(number);
        let Some(process) = self.processes.get_mut(&number) else { return };
        let Some(exit) = process.end else { return };
        process.busy = false;
        process.state = State::Stopped;
        process.streams.stdin.target = None;
        process.streams.oom = None;
        let waiters = std::mem::take(&mut process.waiters);
        let id = process.container.clone();
        let event_id = if process.is_init() { id.clone() } else { process.exec_id.clone() };
        let event = TaskExit {
            container_id: id.clone(),
            id: event_id,
            pid: process.pid,
            exit_status: exit.code,
            exited_at: Some(exit.at),
        };
        let oom_killed = memory.as_ref().is_some_and(|memory| memory.oom_kills > 0);
        let record = process.is_init().then(|| ExitRecord {
            version: ExitRecord::VERSION,
            pid: process.pid,
            exit_code: exit.code,
            signal: exit.signal,
            oom_killed,
            started_at: process.started_at,
            exited_at: exit.at,
            error: None,
            memory,
            phases: Phases { recorded_at: Some(Timestamp::now()), ..process.phases },
            last_lines: process.streams.tail.take().map(Tail::into_lines).unwrap_or_default(),
        });
        if oom_killed {
            // The kernel's notice may come after the end, or the end before the answer to our question.
            self.memory_ran_out(&id);
        }
        if let Some(record) = record {
            self.record(&id, record);
            let _only_fatal_here = brig_failpoint::hit("exit-written");
        }
        self.answer_waiters(waiters, exit);
        self.publish(&event);
        self.settle_clients(number);
        if self.processes.get(&number).is_some_and(|process| !process.streams.ended()) {
            self.timers.set(LINGER, Timer::Linger(number));
        }
    }

    fn record(&mut self, id: &str, mut record: ExitRecord) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.oom_killed |= record.oom_killed;
        record.oom_killed = container.oom_killed;
        if let Err(error) = record.write(&container.bundle) {
            // The end is told all the same: a caller that waits must not hang because a disk is full.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            self.diagnostics.warn(format_args!("{error}: {cause}"));
        }
    }

    fn answer_waiters(&mut self, waiters: Vec<Responder>, exit: Exit) {
        for waiter in waiters {
            self.respond(waiter, Ok(wait_response(exit).encode_to_vec()));
        }
    }

    /// Reads what the process wrote before it ended; all of that is in the pipes by now.
    fn drain(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(number, stream, DRAIN_MAX);
        }
    }

    /// Something may have run out of memory: asks, and hears no more of it until the answer is there.
    pub(super) fn memory_event(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let Some(container) = self.containers.get(&process.container) else { return };
        let Some(watch) = &mut process.streams.oom else { return };
        let mut buffer = [0; 4096];
        // An eventfd or inotify: what it says is less than what the cgroup's counter tells.
        let read = rustix::io::read(&*watch, &mut buffer);
        if matches!(read, Ok(0)) || watch.watch(EventFlags::empty()).is_err() {
            process.streams.oom = None;
            return;
        }
        let (settings, id) = (container.settings.clone(), process.container.clone());
        let work: Work = Box::new(move |_| runtime::memory(&settings, &id));
        self.submit(Task { work, keep: Vec::new(), completion: Completion::Memory(number) });
    }
}

/// More than a pipe holds, so that nothing from before the end is left behind it.
const DRAIN_MAX: usize = 1 << 20;

/// The answer to Wait.
pub(super) fn wait_response(exit: Exit) -> WaitResponse {
    WaitResponse { exit_status: exit.code, exited_at: Some(exit.at) }
}

fn exit_of(status: WaitStatus) -> Exit {
    let at = Timestamp::now();
    let number = |value: i32| u32::try_from(value).unwrap_or(255);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit { code: number(code), signal: None, at },
        (None, Some(signal)) => {
            Exit { code: 128 + number(signal), signal: Some(number(signal)), at }
        }
        (None, None) => Exit { code: 255, signal: None, at },
    }
}
