//! The shim proper: one thread, one loop, every container's processes, streams and callers.
//!
//! ```text
//!  task socket ── Connection ─▶ service ──Task──▶ Operations (forked) ──▶ complete ─▶ respond
//!  stdio socket ─ Client ◀──▶ streams ◀──▶ pipes and terminals of processes ─▶ log
//!  SIGCHLD ─▶ exit ─▶ (drain, ask the cgroup, exit.json) ─▶ answer Wait, publish
//! ```
//!
//! The loop never waits for anything but the kernel's readiness; what takes time runs in a forked child. It blocks in
//! two places only, both on local files: writing the log and syncing `exit.json`.
//!
//! Limits: [`CONNECTIONS_MAX`] callers, [`CLIENTS_MAX`] attached clients, [`PROCESSES_MAX`] processes.

mod attach;
mod complete;
mod exit;
mod options;
mod outputs;
mod publish;
mod service;
mod streams;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use brig_shim_protocol::ttrpc::{Kind, Request, Status};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use prost::Message;

use crate::client::Client;
use crate::connection::{Connection, accept};
use crate::diagnostics::Diagnostics;
use crate::identity::Identity;
use crate::operation::{Operations, Task};
use crate::poller::{Channel, EventFlags, Poller, Source, Watched};
use crate::process::Process;
use crate::runtime::Settings;
use crate::timers::{Timer, Timers};

use complete::Completion;

/// Callers of the task service at a time.
const CONNECTIONS_MAX: usize = 256;

/// Clients of the stdio socket at a time.
const CLIENTS_MAX: usize = 1024;

/// Processes at a time, ended ones that nobody deleted included.
const PROCESSES_MAX: usize = 4096;

/// Bytes read at a time.
const SCRATCH: usize = 32 << 10;

/// How long the shim waits for its last answers to be read before it leaves.
const LEAVE: Duration = Duration::from_secs(5);

/// Who is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Responder {
    connection: u32,
    stream: u32,
}

/// A container of this shim.
#[derive(Debug)]
struct Container {
    bundle: PathBuf,
    settings: Settings,
    /// The number of its init's [`Process`].
    init: u32,
    paused: bool,
    /// Nothing of it outlives init.
    private_pid_namespace: bool,
    /// Streams are served on the stdio socket, not by FIFOs.
    attachable: bool,
    /// User and group that own the ends of its streams.
    owner: Option<(u32, u32)>,
    oom_killed: bool,
}

/// The shim.
pub(crate) struct Shim {
    identity: Identity,
    poller: Rc<Poller>,
    signals: SignalFd,
    _watched_signals: Watched,
    task_listener: Watched,
    stdio_listener: Option<Watched>,
    connections: BTreeMap<u32, Connection>,
    clients: BTreeMap<u32, Client>,
    containers: BTreeMap<String, Container>,
    processes: BTreeMap<u32, Process>,
    operations: Operations<Completion>,
    events: publish::Events,
    timers: Timers,
    diagnostics: Diagnostics,
    scratch: Vec<u8>,
    next_number: u32,
    stopping: bool,
    abandoned: bool,
}

impl Shim {
    /// A shim that serves the two sockets.
    pub(crate) fn new(
        identity: Identity,
        task_socket: OwnedFd,
        stdio_socket: Option<OwnedFd>,
    ) -> Result<Self> {
        let poller = Poller::new().context("make an epoll instance")?;
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).context("make a signal descriptor")?;
        let copy = std::os::fd::AsFd::as_fd(&signals).try_clone_to_owned()?;
        let mut watched_signals = Watched::new(&poller, copy, Source::Signals);
        watched_signals.watch(EventFlags::IN)?;
        let listen = |fd: OwnedFd, source| -> Result<Watched> {
            rustix::io::ioctl_fionbio(&fd, true)?;
            let mut listener = Watched::new(&poller, fd, source);
            listener.watch(EventFlags::IN)?;
            Ok(listener)
        };
        Ok(Self {
            task_listener: listen(task_socket, Source::TaskListener)?,
            stdio_listener: stdio_socket
                .map(|socket| listen(socket, Source::StdioListener))
                .transpose()?,
            operations: Operations::new(&poller),
            diagnostics: Diagnostics::open(identity.debug),
            identity,
            poller,
            signals,
            _watched_signals: watched_signals,
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            events: publish::Events::default(),
            timers: Timers::default(),
            scratch: vec![0; SCRATCH],
            next_number: 1,
            stopping: false,
            abandoned: false,
        })
    }

    /// Serves until it was shut down and nothing is left to do.
    pub(crate) fn run(&mut self) -> Result<()> {
        let poller = Rc::clone(&self.poller);
        while !self.has_finished() {
            let events = poller.wait(self.timers.delay()).context("wait for events")?;
            for (source, flags) in events {
                self.handle(source, flags);
            }
            while let Some(timer) = self.timers.take_due() {
                self.due(timer);
            }
            while let Some((completion, status)) = self.operations.advance() {
                self.refuse(completion, status);
            }
        }
        Ok(())
    }

    fn has_finished(&self) -> bool {
        let answered = self.connections.values().all(Connection::is_flushed);
        self.stopping
            && (self.abandoned || (answered && self.operations.is_idle() && self.events.is_empty()))
    }

    /// Ends the loop once answers and events are out, or after a while.
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.timers.set(LEAVE, Timer::Leave);
        }
    }

    fn handle(&mut self, source: Source, flags: EventFlags) {
        match source {
            Source::Signals => self.take_signals(),
            Source::TaskListener => self.accept_connections(),
            Source::StdioListener => self.accept_clients(),
            Source::Connection(number) => self.connection_ready(number, flags),
            Source::Client(number) => self.client_ready(number, flags),
            Source::Operation(pid) => self.operations.receive(pid),
            Source::Process(number, channel) => self.process_ready(number, channel),
        }
    }

    fn process_ready(&mut self, number: u32, channel: Channel) {
        use brig_shim_protocol::attach::Stream;
        match channel {
            Channel::Stdout => self.pump_output(number, Stream::Stdout),
            Channel::Stderr => self.pump_output(number, Stream::Stderr),
            Channel::ForwardStdout => self.flush_forward(number, Stream::Stdout),
            Channel::ForwardStderr => self.flush_forward(number, Stream::Stderr),
            Channel::Stdin => self.flush_stdin(number),
            Channel::StdinFifo => self.read_stdin_fifo(number),
            Channel::Oom => self.memory_event(number),
        }
    }

    fn due(&mut self, timer: Timer) {
        match timer {
            Timer::Linger(number) => self.stop_lingering(number),
            Timer::Stall(number) => self.check_stall(number),
            Timer::Publish => self.publish_next(),
            Timer::Leave => self.abandoned = true,
            Timer::Listen => {
                // A descriptor may be free again; if not, the next accept says so.
                let _best_effort = self.task_listener.watch(EventFlags::IN);
                if let Some(listener) = &mut self.stdio_listener {
                    let _best_effort = listener.watch(EventFlags::IN);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(information)) = self.signals.read_signal() {
            let signal = i32::try_from(information.ssi_signo).unwrap_or(0);
            if signal == Signal::SIGCHLD as i32 {
                continue;
            }
            if self.containers.is_empty() {
                self.stop();
            } else {
                self.diagnostics.warn(format_args!(
                    "signal {signal} ignored: a container is left, and only its shim knows how it ends"
                ));
            }
        }
        self.reap();
    }

    fn accept_connections(&mut self) {
        while let Some(socket) = self.accept(false) {
            let number = self.number();
            let socket = Watched::new(&self.poller, socket, Source::Connection(number));
            if let (true, Ok(connection)) =
                (self.connections.len() < CONNECTIONS_MAX, Connection::new(socket))
            {
                self.connections.insert(number, connection);
            }
        }
    }

    fn accept_clients(&mut self) {
        while let Some(socket) = self.accept(true) {
            let number = self.number();
            let socket = Watched::new(&self.poller, socket, Source::Client(number));
            if let (true, Ok(client)) = (self.clients.len() < CLIENTS_MAX, Client::new(socket)) {
                self.clients.insert(number, client);
            }
        }
    }

    fn accept(&mut self, stdio: bool) -> Option<OwnedFd> {
        let listener = match &mut self.stdio_listener {
            Some(listener) if stdio => listener,
            _ => &mut self.task_listener,
        };
        match accept(listener) {
            Ok(socket) => socket,
            Err(errno) => {
                self.diagnostics.warn(format_args!("accept a connection: {errno}"));
                // Out of descriptors: the connection stays in the queue, so pause instead of spinning.
                let _best_effort = listener.watch(EventFlags::empty());
                self.timers.set(Duration::from_millis(200), Timer::Listen);
                None
            }
        }
    }

    fn connection_ready(&mut self, number: u32, flags: EventFlags) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let frames = self.connections.get_mut(&number).map(|connection| {
            if flags.contains(EventFlags::OUT) {
                connection.flush()?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                return connection.receive(&mut scratch);
            }
            Ok(Vec::new())
        });
        self.scratch = scratch;
        match frames {
            Some(Ok(frames)) => {
                for frame in frames {
                    let responder = Responder { connection: number, stream: frame.stream };
                    if frame.kind != Kind::Request {
                        continue;
                    }
                    match Request::decode(&*frame.payload) {
                        Ok(request) => self.serve(&request, responder),
                        Err(_malformed) => self.drop_connection(number),
                    }
                }
            }
            Some(Err(_gone)) => self.drop_connection(number),
            None => {}
        }
    }

    fn drop_connection(&mut self, number: u32) {
        self.connections.remove(&number);
        for process in self.processes.values_mut() {
            process.waiters.retain(|waiter| waiter.connection != number);
        }
    }

    /// Answers a caller, if it is still there.
    fn respond(&mut self, responder: Responder, answer: Result<Vec<u8>, Status>) {
        let Some(connection) = self.connections.get_mut(&responder.connection) else { return };
        if connection.respond(responder.stream, answer).is_err() {
            self.drop_connection(responder.connection);
        }
    }

    /// Runs a task in a forked child; what cannot be run is answered at once.
    fn submit(&mut self, task: Task<Completion>) {
        if let Err((completion, status)) = self.operations.submit(task) {
            self.refuse(completion, status);
        }
    }

    /// A number that was never used before.
    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        number
    }
}
