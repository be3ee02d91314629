//! Slow work in forked children, so that the loop never waits and the shim keeps none of the memory.
//!
//! The shim has one thread, so a fork is cheap and safe. A child runs one call of the runtime (or compresses a file, or
//! publishes an event), sends a [`Reply`] over a socket and exits. Hooks may take minutes in there while logs flow.
//! What the child itself started, a container's init or an exec process, becomes the shim's own child when the
//! operation's process ends, because the shim is a subreaper.
//!
//! ```text
//! shim ──fork──▶ operation ──clone3──▶ init
//!   ◀──Reply, descriptors──┘ exits       │
//!   ◀──────────reparented────────────────┘
//! ```
//!
//! An operation is complete when its process has been reaped, not before: only then is the shim the parent of what it
//! started. Limits: [`RUNNING_MAX`] at a time, [`QUEUED_MAX`] waiting, [`REPLY_LENGTH_MAX`] bytes of answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use brig_shim_protocol::ttrpc::{Code, Status};
use brig_shim_protocol::{MemoryAtExit, OomVictim};
use nix::sys::signal::SigSet;
use prost::Message;
use rustix::process::{Pid, Signal};

use crate::poller::{EventFlags, Poller, Source, Watched};

/// Operations that run at the same time; more would only fight for two processors' worth of work.
const RUNNING_MAX: usize = 16;

/// Operations that wait for a place; further requests are refused.
const QUEUED_MAX: usize = 1024;

/// Longest reply; a ttrpc message could not carry more.
const REPLY_LENGTH_MAX: usize = 4 << 20;

/// What an operation answers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    /// A [`Code`]; 0 is success.
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    /// The failure in words.
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    /// The process that was started.
    #[prost(uint32, tag = "3")]
    pub(crate) pid: u32,
    /// The message to answer the request with.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) payload: Vec<u8>,
    /// What the memory of the container came to.
    #[prost(message, optional, tag = "5")]
    pub(crate) memory: Option<Memory>,
    /// The container has a PID namespace of its own, so nothing outlives its init.
    #[prost(bool, tag = "6")]
    pub(crate) private_pid_namespace: bool,
    /// The first descriptor that came along is the terminal's master.
    #[prost(bool, tag = "7")]
    pub(crate) has_console: bool,
    /// The last descriptor that came along reports out-of-memory kills.
    #[prost(bool, tag = "8")]
    pub(crate) has_oom_watch: bool,
}

impl Reply {
    /// Success with a message.
    pub(crate) fn payload(message: &impl Message) -> Self {
        Self { payload: message.encode_to_vec(), ..Self::default() }
    }

    /// A failure.
    pub(crate) fn failure(status: Status) -> Self {
        Self { code: status.code, message: status.message, ..Self::default() }
    }
}

/// What the memory of a container came to; see [`MemoryAtExit`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Memory {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) peak_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) limit_bytes: Option<u64>,
    #[prost(uint64, tag = "3")]
    pub(crate) oom_kills: u64,
    /// Empty when it is not known.
    #[prost(string, tag = "4")]
    pub(crate) victim_name: String,
    #[prost(uint32, tag = "5")]
    pub(crate) victim_pid: u32,
}

impl From<Memory> for MemoryAtExit {
    fn from(memory: Memory) -> Self {
        let victim = OomVictim { name: memory.victim_name, pid: memory.victim_pid };
        Self {
            peak_bytes: memory.peak_bytes,
            limit_bytes: memory.limit_bytes,
            oom_kills: memory.oom_kills,
            victim: Some(victim).filter(|victim| victim.pid != 0),
        }
    }
}

/// What an operation hands back: the reply and descriptors.
pub(crate) type Outcome = (Reply, Vec<OwnedFd>);

/// The work of an operation, given the descriptors that it was to keep.
pub(crate) type Work = Box<dyn FnOnce(Vec<OwnedFd>) -> Outcome>;

/// What to run, and what it may use.
pub(crate) struct Task<C> {
    /// Runs in the child.
    pub(crate) work: Work,
    /// Descriptors that the child keeps; the shim's copies close once it runs.
    pub(crate) keep: Vec<OwnedFd>,
    /// What the shim does with the answer.
    pub(crate) completion: C,
}

impl<C: fmt::Debug> fmt::Debug for Task<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Task").field("completion", &self.completion).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Operation<C> {
    channel: Watched,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    completion: C,
}

/// The operations of a shim; `C` says what to do with an answer.
#[derive(Debug)]
pub(crate) struct Operations<C> {
    poller: Rc<Poller>,
    running: BTreeMap<u32, Operation<C>>,
    queue: VecDeque<Task<C>>,
}

/// An operation that could not run: its completion, and what to answer.
pub(crate) type Refused<C> = (C, Status);

impl<C> Operations<C> {
    pub(crate) fn new(poller: &Rc<Poller>) -> Self {
        Self { poller: Rc::clone(poller), running: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// True when nothing runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Runs a task now or when a place is free.
    pub(crate) fn submit(&mut self, task: Task<C>) -> Result<(), Refused<C>> {
        if self.running.len() < RUNNING_MAX {
            return self.spawn(task);
        }
        if self.queue.len() >= QUEUED_MAX {
            let message = format!("{QUEUED_MAX} requests are waiting already; try again later");
            return Err((task.completion, Status::new(Code::ResourceExhausted, message)));
        }
        self.queue.push_back(task);
        Ok(())
    }

    /// Starts what waits, as far as there are places; call again while it answers refusals.
    pub(crate) fn advance(&mut self) -> Option<Refused<C>> {
        while self.running.len() < RUNNING_MAX {
            let task = self.queue.pop_front()?;
            if let Err(refused) = self.spawn(task) {
                return Some(refused);
            }
        }
        None
    }

    fn spawn(&mut self, task: Task<C>) -> Result<(), Refused<C>> {
        let Task { work, keep, completion } = task;
        let (pid, channel) = match fork_operation(work, keep) {
            Ok(forked) => forked,
            Err(error) => return Err((completion, error)),
        };
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let mut channel = Watched::new(&self.poller, channel, Source::Operation(pid));
        // Unwatched, a long reply would have to fit the socket's buffer; short ones are read at the end anyway.
        let _best_effort = channel.watch(EventFlags::IN);
        let operation = Operation { channel, bytes: Vec::new(), fds: Vec::new(), completion };
        self.running.insert(pid, operation);
        Ok(())
    }

    /// Takes what an operation has sent so far.
    pub(crate) fn receive(&mut self, pid: u32) {
        if let Some(operation) = self.running.get_mut(&pid) {
            operation.receive();
        }
    }

    /// The operation of a process that was reaped, with its answer.
    pub(crate) fn complete(&mut self, pid: u32) -> Option<(C, Outcome)> {
        let mut operation = self.running.remove(&pid)?;
        operation.receive();
        let reply = Reply::decode(&*operation.bytes).ok().filter(|_| !operation.bytes.is_empty());
        let reply = reply.unwrap_or_else(|| {
            let message = "the runtime call ended without an answer; the shim's log may say why";
            Reply::failure(Status::new(Code::Internal, message))
        });
        Some((operation.completion, (reply, operation.fds)))
    }
}

impl<C> Operation<C> {
    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match brig_linux::fd::receive_with_fds(self.channel.as_fd(), &mut buffer) {
                Ok((0, _)) => {
                    let _best_effort = self.channel.watch(EventFlags::empty());
                    return;
                }
                Ok((count, fds)) => {
                    self.fds.extend(fds);
                    if self.bytes.len() + count <= REPLY_LENGTH_MAX {
                        self.bytes.extend_from_slice(&buffer[..count]);
                    }
                }
                Err(_nothing_more_now) => return,
            }
        }
    }
}

/// Forks a child that runs `work`; answers its process id and the socket that its reply comes from.
fn fork_operation(work: Work, mut keep: Vec<OwnedFd>) -> Result<(Pid, OwnedFd), Status> {
    let failed = |what: &str, error: &dyn fmt::Display| {
        Status::new(Code::ResourceExhausted, format!("{what}: {error}"))
    };
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| failed("make a socket pair", &error))?;
    ours.set_nonblocking(true).map_err(|error| failed("prepare a socket", &error))?;
    let shim = rustix::process::getpid();
    keep.push(theirs.into());
    let pid = brig_linux::fork::fork(keep, move |mut keep| {
        let Some(channel) = keep.pop() else { return 1 };
        prepare_child(shim);
        send(channel, work(keep))
    })
    .map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        failed("start a runtime call", &format!("{error}: {}", source.unwrap_or_default()))
    })?;
    Ok((pid, ours.into()))
}

/// The child ends when the shim does: nobody would hear its answer, and `delete` cleans up after both.
fn prepare_child(shim: Pid) {
    let _best_effort = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if rustix::process::getppid() != Some(shim) {
        brig_linux::process::exit(1);
    }
    // The shim blocks the signals it reads from a descriptor; a container must not inherit that.
    let _best_effort = SigSet::empty().thread_set_mask();
}

fn send(channel: OwnedFd, (reply, fds): Outcome) -> i32 {
    let bytes = reply.encode_to_vec();
    // A reply is never empty on the wire, since descriptors need a byte to travel with and silence means failure.
    let bytes = if bytes.is_empty() { Reply::padding() } else { bytes };
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let Ok(sent) = brig_linux::fd::send_with_fds(channel.as_fd(), &bytes, &borrowed) else {
        return 1;
    };
    match UnixStream::from(channel).write_all(&bytes[sent..]) {
        Ok(()) => 0,
        Err(_shim_is_gone) => 1,
    }
}

impl Reply {
    /// An explicit `code = 0`, which decodes to the default.
    fn padding() -> Vec<u8> {
        vec![0x08, 0x00]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_success_still_has_bytes() {
        let reply = Reply::default();
        assert!(reply.encode_to_vec().is_empty());
        assert_eq!(Reply::decode(&*Reply::padding()).unwrap(), reply);
    }
}
