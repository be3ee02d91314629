//! Where output goes besides clients and the shim's own log: containerd's FIFOs and files, and loggers.

use std::os::fd::{AsFd, OwnedFd};

use brig_shim_protocol::attach::Stream;
use brig_shim_protocol::options::LogOptions;
use brig_shim_protocol::ttrpc::{Code, Status};

use super::Shim;
use crate::log::{Log, Sink};
use crate::logger::{self, Logger};
use crate::outbox::Outbox;
use crate::poller::{Channel, Source, Watched};
use crate::process::{Forward, Process};
use crate::ring::Ring;
use crate::stdio::{Target, open_fifo_for_output, open_file};

/// Output that may wait for a log that must not make its container wait, when nobody said how much.
const BUFFER_LENGTH: u64 = 1 << 20;

/// Standard output's target, and standard error's.
type Forwards = [Option<Forward>; 2];

impl Shim {
    /// Opens what containerd asked for. A program that both streams name is one logger.
    pub(super) fn open_forwards(
        &self,
        number: u32,
        process: &mut Process,
    ) -> Result<Forwards, Status> {
        let (stdout, stderr) = (process.request.stdout.clone(), process.request.stderr.clone());
        let mut forwards = [None, None];
        let mut both = None;
        if let Some(logger) = self.program(&stdout, &process.container)? {
            let (first, second) = start(process, logger)?;
            forwards[0] = Some(self.pipe(number, Stream::Stdout, first));
            both = Some(second).filter(|_| stdout == stderr);
        } else {
            forwards[0] = self.open_forward(&stdout, number, Channel::ForwardStdout)?;
        }
        if process.request.terminal {
            return Ok(forwards);
        }
        forwards[1] = if let Some(pipe) = both {
            Some(self.pipe(number, Stream::Stderr, pipe))
        } else if let Some(logger) = self.program(&stderr, &process.container)? {
            let (_unused, second) = start(process, logger)?;
            Some(self.pipe(number, Stream::Stderr, second))
        } else {
            self.open_forward(&stderr, number, Channel::ForwardStderr)?
        };
        Ok(forwards)
    }

    fn program(&self, target: &str, id: &str) -> Result<Option<Logger>, Status> {
        match Target::parse(target).map_err(invalid)? {
            Target::Binary { program, arguments } => Ok(Some(Logger::Program {
                program,
                arguments,
                id: id.to_owned(),
                namespace: self.identity.namespace.clone(),
            })),
            _ => Ok(None),
        }
    }

    /// A FIFO or a file.
    fn open_forward(
        &self,
        target: &str,
        number: u32,
        channel: Channel,
    ) -> Result<Option<Forward>, Status> {
        if target.is_empty() {
            return Ok(None);
        }
        let failed =
            |error: &dyn std::fmt::Display| invalid(format!("open output {target}: {error}"));
        let (fd, is_file) = match Target::parse(target).map_err(invalid)? {
            Target::Fifo(path) => {
                (open_fifo_for_output(&path).map_err(|errno| failed(&errno))?, false)
            }
            Target::File(path) => (open_file(&path).map_err(|error| failed(&error))?, true),
            Target::Binary { .. } => return Ok(None),
        };
        let target = Watched::new(&self.poller, fd, Source::Process(number, channel));
        Ok(Some(Forward {
            target,
            outbox: Outbox::default(),
            is_file,
            is_logger: false,
            ring: None,
        }))
    }

    fn pipe(&self, number: u32, stream: Stream, fd: OwnedFd) -> Forward {
        let channel = match stream {
            Stream::Stdout => Channel::ForwardStdout,
            _ => Channel::ForwardStderr,
        };
        let target = Watched::new(&self.poller, fd, Source::Process(number, channel));
        Forward { target, outbox: Outbox::default(), is_file: false, is_logger: true, ring: None }
    }

    /// Opens the log that brigd asked for: in the shim where it only waits for files, else with a logger.
    pub(super) fn open_log(
        &self,
        number: u32,
        process: &mut Process,
        options: &LogOptions,
    ) -> Result<(), Status> {
        let logger = if options.driver.starts_with("binary:") {
            self.program(&options.driver, &process.container)?
        } else if options.driver == "journald"
            || (options.driver == "json-file" && options.non_blocking)
        {
            // Opened here too, since nobody hears a child that fails.
            Sink::open(options).map_err(invalid)?;
            Some(Logger::Log(options.clone()))
        } else {
            process.streams.log = match &*options.driver {
                "json-file" => Some(Log::open(options).map_err(invalid)?),
                _ => Sink::open(options).map_err(invalid).map(|_none| None)?,
            };
            None
        };
        let Some(logger) = logger else { return Ok(()) };
        let (first, second) = start(process, logger)?;
        let mut forwards =
            [self.pipe(number, Stream::Stdout, first), self.pipe(number, Stream::Stderr, second)];
        if options.non_blocking {
            let length = Some(options.max_buffer_bytes).filter(|&length| length > 0);
            let length = usize::try_from(length.unwrap_or(BUFFER_LENGTH)).unwrap_or(usize::MAX);
            // The two streams share what may wait.
            for forward in &mut forwards {
                forward.ring = Some(Ring::new(length / 2));
            }
        }
        let [stdout, stderr] = forwards;
        let streams = &mut process.streams;
        if process.request.terminal {
            streams.console_forward = Some(stdout);
            return Ok(());
        }
        for (output, forward) in [(&mut streams.stdout, stdout), (&mut streams.stderr, stderr)] {
            if let Some(output) = output {
                output.forward = Some(forward);
            }
        }
        Ok(())
    }

    /// Lets a child give loggers what they are still to get of a process that is about to be forgotten.
    pub(super) fn hand_over_to_loggers(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        for output in [&mut streams.stdout, &mut streams.stderr].into_iter().flatten() {
            let Some(mut forward) = output.forward.take_if(|forward| forward.is_logger) else {
                continue;
            };
            let note = forward.ring.as_mut().map(Ring::finish).unwrap_or_default();
            forward.outbox.push(&note);
            if forward.outbox.is_empty() {
                continue;
            }
            let waiting = forward.outbox.waiting().to_owned();
            let copies = forward.target.as_fd().try_clone_to_owned().and_then(|target| {
                let source = output.source.as_ref().map(|it| it.as_fd().try_clone_to_owned());
                Ok((target, source.transpose()?))
            });
            let handed = copies.map_err(|error| error.to_string()).and_then(|(target, source)| {
                let keep = std::iter::once(target).chain(source).collect();
                brig_linux::fork::fork(keep, move |kept| {
                    let mut kept = kept.into_iter();
                    let Some(target) = kept.next() else { return 1 };
                    logger::hand_over(&waiting, kept.next(), target)
                })
                .map_err(|error| error.to_string())
            });
            if let Err(message) = handed {
                self.diagnostics.warn(format_args!("hand output over to a logger: {message}"));
            }
        }
    }
}

impl Forward {
    /// Sends output on, or keeps it until the target takes it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> rustix::io::Result<()> {
        if self.is_file {
            let mut rest = bytes;
            while !rest.is_empty() {
                let count = rustix::io::retry_on_intr(|| rustix::io::write(&self.target, rest))?;
                rest = &rest[count..];
            }
            return Ok(());
        }
        match &mut self.ring {
            Some(ring) => {
                let admitted = ring.admit(self.outbox.len(), bytes);
                self.outbox.send(&self.target, &[&admitted])?;
            }
            None => self.outbox.send(&self.target, &[bytes])?,
        }
        self.target.watch(super::streams::output_interest(!self.outbox.is_empty()))
    }

    /// The stream has ended: tells what was dropped of it last.
    pub(super) fn end(&mut self) -> rustix::io::Result<()> {
        let note = self.ring.as_mut().map(Ring::finish).unwrap_or_default();
        if note.is_empty() {
            return Ok(());
        }
        self.outbox.push(&note);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> rustix::io::Result<()> {
        self.outbox.flush(&self.target)?;
        self.target.watch(super::streams::output_interest(!self.outbox.is_empty()))
    }

    /// True while the process must wait for the target.
    pub(super) fn holds_up(&self) -> bool {
        self.ring.is_none() && !self.outbox.is_empty()
    }
}

/// Starts a process's logger, for which the process is to wait; answers the pipes of standard output and error.
fn start(process: &mut Process, logger: Logger) -> Result<(OwnedFd, OwnedFd), Status> {
    let pipes = logger.start().map_err(unavailable)?;
    process.ready.extend(pipes.ready);
    Ok((pipes.stdout, pipes.stderr))
}

fn invalid(message: String) -> Status {
    Status::new(Code::InvalidArgument, message)
}

fn unavailable(message: String) -> Status {
    Status::new(Code::Unavailable, message)
}
