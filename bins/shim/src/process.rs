//! One process of a container, init or exec: its life and its streams.
//!
//! ```text
//! Create/Exec   Start        end seen       drained, recorded
//! Preparing ──▶ Created ──▶ Running ──────▶ Ended ──▶ Stopped
//!     (exec: Created at once; the process exists from Start on)
//! ```
//!
//! The end may be seen before the answer of the operation that started the process; it is announced after it.

use std::os::fd::OwnedFd;

use brig_shim_protocol::types::Status;
use brig_shim_protocol::{Phases, Timestamp};

use crate::log::Log;
use crate::outbox::Outbox;
use crate::poller::Watched;
use crate::ring::Ring;
use crate::server::Responder;
use crate::stdio::{ProcessEnds, StdioRequest};
use crate::tail::Tail;

/// A process of a container.
#[derive(Debug)]
pub(crate) struct Process {
    /// The container's id.
    pub(crate) container: String,
    /// Empty for init.
    pub(crate) exec_id: String,
    /// What was asked for its streams.
    pub(crate) request: StdioRequest,
    /// Process id; 0 before it exists.
    pub(crate) pid: u32,
    pub(crate) state: State,
    pub(crate) started_at: Option<Timestamp>,
    /// What came before and after, for the record of init's end.
    pub(crate) phases: Phases,
    /// An operation that starts the process is under way.
    pub(crate) busy: bool,
    /// It has been reaped.
    pub(crate) end: Option<Exit>,
    /// Calls of Wait to answer.
    pub(crate) waiters: Vec<Responder>,
    /// Its ends of the pipes, until it is started.
    pub(crate) ends: ProcessEnds,
    /// What ends when its loggers are ready; waited for before it is created or started.
    pub(crate) ready: Vec<OwnedFd>,
    /// An exec's OCI process, until it is started.
    pub(crate) spec: Vec<u8>,
    pub(crate) streams: Streams,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being created.
    Preparing,
    /// Ready to be started.
    Created,
    /// Started.
    Running,
    /// Its end was announced.
    Stopped,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 plus the signal.
    pub(crate) code: u32,
    pub(crate) signal: Option<u32>,
    pub(crate) at: Timestamp,
}

/// The shim's side of a process's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    pub(crate) stdin: Input,
    /// Where a terminal's output is to go, until the terminal exists.
    pub(crate) console_forward: Option<Forward>,
    /// The terminal's master, for its size.
    pub(crate) console: Option<OwnedFd>,
    pub(crate) log: Option<Log>,
    /// The last lines of init, if a log of them is kept at all.
    pub(crate) tail: Option<Tail>,
    /// Attached clients by number.
    pub(crate) clients: Vec<u32>,
    /// Descriptors kept so that a FIFO does not end early.
    pub(crate) stdin_fifo: Option<StdinFifo>,
    /// Reports out-of-memory kills.
    pub(crate) oom: Option<Watched>,
}

/// An output stream of a process.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` once it has ended and only the forwarding is left.
    pub(crate) source: Option<Watched>,
    /// Where containerd wants it.
    pub(crate) forward: Option<Forward>,
}

/// A FIFO or file that output is forwarded to; while it is full, the process waits, as on a pipe.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) target: Watched,
    pub(crate) outbox: Outbox,
    /// A regular file, which epoll cannot watch and which never is full.
    pub(crate) is_file: bool,
    /// A pipe to a logger, which gets all there is even after the end.
    pub(crate) is_logger: bool,
    /// Drops what a logger that is behind cannot take, instead of making the process wait.
    pub(crate) ring: Option<Ring>,
}

/// The standard input of a process.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Somebody asked for input; else what clients send is dropped.
    pub(crate) wanted: bool,
    /// `None` before the terminal exists, after the end, or when none was asked for.
    pub(crate) target: Option<Watched>,
    pub(crate) outbox: Outbox,
    /// Close once what waits is written.
    pub(crate) closing: bool,
    /// End of input closes it: the first client's leaving, or `CloseIO`.
    pub(crate) once: bool,
}

/// containerd's FIFO for standard input.
#[derive(Debug)]
pub(crate) struct StdinFifo {
    pub(crate) source: Watched,
    /// Keeps the FIFO from ending until CloseIO.
    pub(crate) hold: Option<OwnedFd>,
}

impl Process {
    /// A process that is yet to be created or started.
    pub(crate) fn new(container: &str, exec_id: &str, request: StdioRequest) -> Self {
        Self {
            container: container.to_owned(),
            exec_id: exec_id.to_owned(),
            request,
            pid: 0,
            state: State::Preparing,
            started_at: None,
            phases: Phases::default(),
            busy: false,
            end: None,
            waiters: Vec::new(),
            ends: Vec::new(),
            ready: Vec::new(),
            spec: Vec::new(),
            streams: Streams::default(),
        }
    }

    /// True for the container's init.
    pub(crate) fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// True while its end was not announced.
    pub(crate) fn is_alive(&self) -> bool {
        self.pid != 0 && self.state != State::Stopped
    }

    /// The state in the protocol's terms.
    pub(crate) fn status(&self, paused: bool) -> Status {
        match self.state {
            State::Preparing | State::Created => Status::Created,
            State::Running if paused => Status::Paused,
            State::Running => Status::Running,
            State::Stopped => Status::Stopped,
        }
    }

    /// The end, once it was announced.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.end.filter(|_| self.state == State::Stopped)
    }
}

impl Streams {
    /// True when no more output can come.
    pub(crate) fn ended(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }
}
