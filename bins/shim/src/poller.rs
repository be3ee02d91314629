//! epoll(7), with descriptors that know what they are watched for.
//!
//! A [`Source`] packs into the 64 bits that epoll carries. Its number is never used twice, so an event that was
//! already on its way when its object went finds nothing and is dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData};
use rustix::io::Errno;

pub(crate) use rustix::event::epoll::EventFlags;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The signal descriptor.
    Signals,
    /// A connection waits on the task socket.
    TaskListener,
    /// A connection waits on the stdio socket.
    StdioListener,
    /// A client of the task service.
    Connection(u32),
    /// A client of the stdio socket.
    Client(u32),
    /// A forked operation, by process id.
    Operation(u32),
    /// A descriptor of a container's process.
    Process(u32, Channel),
}

/// Which descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Its standard output (or terminal) is readable.
    Stdout,
    /// Its standard error is readable.
    Stderr,
    /// Its standard input (or terminal) takes more.
    Stdin,
    /// The FIFO that standard output is forwarded to takes more.
    ForwardStdout,
    /// The same for standard error.
    ForwardStderr,
    /// The FIFO that standard input comes from is readable.
    StdinFifo,
    /// The memory cgroup's out-of-memory notification.
    Oom,
}

const CHANNELS: [Channel; 7] = [
    Channel::Stdout,
    Channel::Stderr,
    Channel::Stdin,
    Channel::ForwardStdout,
    Channel::ForwardStderr,
    Channel::StdinFifo,
    Channel::Oom,
];

impl Source {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::TaskListener => (1, 0),
            Self::StdioListener => (2, 0),
            Self::Connection(number) => (3, number),
            Self::Client(number) => (4, number),
            Self::Operation(number) => (5, number),
            Self::Process(number, channel) => (6 + channel as u64, number),
        };
        kind << 32 | u64::from(number)
    }

    fn unpack(data: u64) -> Option<Self> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        Some(match data >> 32 {
            0 => Self::Signals,
            1 => Self::TaskListener,
            2 => Self::StdioListener,
            3 => Self::Connection(number),
            4 => Self::Client(number),
            5 => Self::Operation(number),
            kind => {
                let channel = usize::try_from(kind - 6).ok()?;
                Self::Process(number, *CHANNELS.get(channel)?)
            }
        })
    }
}

/// Events taken from the kernel at a time.
const EVENTS: usize = 16;

/// The epoll instance.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> rustix::io::Result<Rc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Rc::new(Self { epoll }))
    }

    /// Waits at most `timeout` (`None`: for ever) and hands out what happened.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
    ) -> rustix::io::Result<impl Iterator<Item = (Source, EventFlags)>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(u64::MAX) };
        let mut events = [none; EVENTS];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Err(Errno::INTR) => 0,
            answer => answer?,
        };
        let events = events.into_iter().take(count);
        Ok(events.filter_map(|event| Some((Source::unpack(event.data.u64())?, event.flags))))
    }
}

/// A descriptor that can be watched. It leaves the epoll instance before it closes: a forked child may hold a copy, so
/// closing alone would leave it watched.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    source: Source,
    interest: EventFlags,
    poller: Rc<Poller>,
}

impl Watched {
    /// A descriptor that is not watched yet.
    pub(crate) fn new(poller: &Rc<Poller>, fd: OwnedFd, source: Source) -> Self {
        Self { fd, source, interest: EventFlags::empty(), poller: Rc::clone(poller) }
    }

    /// What it is watched for.
    pub(crate) fn interest(&self) -> EventFlags {
        self.interest
    }

    /// Watches for `interest`; for nothing at all (not even the peer's end) when it is empty.
    pub(crate) fn watch(&mut self, interest: EventFlags) -> rustix::io::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        let data = EventData::new_u64(self.source.pack());
        if interest.is_empty() {
            epoll::delete(&self.poller.epoll, &self.fd)?;
        } else if self.interest.is_empty() {
            epoll::add(&self.poller.epoll, &self.fd, data, interest)?;
        } else {
            epoll::modify(&self.poller.epoll, &self.fd, data, interest)?;
        }
        self.interest = interest;
        Ok(())
    }

    /// Adds or removes one direction.
    pub(crate) fn toggle(&mut self, flag: EventFlags, on: bool) -> rustix::io::Result<()> {
        self.watch(if on { self.interest | flag } else { self.interest - flag })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It was registered, and a failure would leave at most an event for a source that is gone.
        let _gone = self.watch(EventFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_packing() {
        let mut sources = vec![Source::Signals, Source::TaskListener, Source::StdioListener];
        for number in [0, 1, u32::MAX] {
            sources.extend([
                Source::Connection(number),
                Source::Client(number),
                Source::Operation(number),
            ]);
            sources.extend(CHANNELS.map(|channel| Source::Process(number, channel)));
        }
        for source in sources {
            assert_eq!(Source::unpack(source.pack()), Some(source));
        }
        assert_eq!(Source::unpack(u64::MAX), None);
    }
}
