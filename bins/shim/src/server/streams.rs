//! Moving bytes between processes and whoever reads or writes them.
//!
//! Output is read only while nobody who must not lose any is behind: a full FIFO of containerd's or a lossless client
//! makes the process wait as on any pipe. A log and ordinary clients never do.

use std::os::fd::OwnedFd;

use brig_shim_protocol::Timestamp;
use brig_shim_protocol::attach::Stream;
use brig_shim_protocol::ttrpc::{Code, Status};
use rustix::io::Errno;

use super::Shim;
use super::complete::Completion;
use crate::log::{CompressJob, compress};
use crate::operation::{Reply, Task, Work};
use crate::poller::{Channel, EventFlags, Source, Watched};
use crate::process::{Forward, Output, Process, StdinFifo, Streams};
use crate::stdio::{make_pipes, open_fifo_for_input};

/// Bytes read from a stream before others get their turn.
const TURN: usize = 128 << 10;

/// Input that may wait for a process before its sources are left unread.
const STDIN_WAITING_MAX: usize = 64 << 10;

impl Shim {
    /// Makes the streams that were asked for; a terminal's come with [`Shim::open_console`].
    pub(super) fn open_streams(&self, number: u32, process: &mut Process) -> Result<(), Status> {
        let [stdout, stderr] = self.open_forwards(number, process)?;
        let request = &process.request;
        let streams = &mut process.streams;
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Status::new(Code::Internal, format!("{what}: {error}"))
        };
        let watched =
            |fd, channel| Watched::new(&self.poller, fd, Source::Process(number, channel));
        streams.stdin.wanted = request.open_stdin || !request.stdin.is_empty();
        if !request.stdin.is_empty() {
            let what = format!("open standard input {}", request.stdin);
            let (read, hold) = open_fifo_for_input(request.stdin.as_ref())
                .map_err(|errno| failed(&what, &errno))?;
            let mut source = watched(read, Channel::StdinFifo);
            source.watch(EventFlags::IN).map_err(|errno| failed(&what, &errno))?;
            streams.stdin_fifo = Some(StdinFifo { source, hold: Some(hold) });
        }
        if request.terminal {
            streams.console_forward = stdout;
            return Ok(());
        }
        let (shim, ends) =
            make_pipes(request).map_err(|error| failed("make the streams' pipes", &error))?;
        process.ends = ends;
        let output = |fd: Option<OwnedFd>, channel, forward| -> Result<Option<Output>, Status> {
            let Some(fd) = fd else { return Ok(None) };
            let mut source = watched(fd, channel);
            source.watch(EventFlags::IN).map_err(|errno| failed("watch a stream", &errno))?;
            Ok(Some(Output { source: Some(source), forward }))
        };
        streams.stdout = output(shim.stdout, Channel::Stdout, stdout)?;
        streams.stderr = output(shim.stderr, Channel::Stderr, stderr)?;
        streams.stdin.target = shim.stdin.map(|fd| watched(fd, Channel::Stdin));
        Ok(())
    }

    /// Serves the terminal of a process that was just created or started.
    pub(super) fn open_console(&mut self, number: u32, console: OwnedFd) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        let prepare = || -> rustix::io::Result<(Watched, Watched)> {
            rustix::io::ioctl_fionbio(&console, true)?;
            let copy = || rustix::io::fcntl_dupfd_cloexec(&console, 3);
            let watched =
                |fd, channel| Watched::new(&self.poller, fd, Source::Process(number, channel));
            let mut output = watched(copy()?, Channel::Stdout);
            output.watch(EventFlags::IN)?;
            Ok((output, watched(copy()?, Channel::Stdin)))
        };
        match prepare() {
            Ok((output, input)) => {
                let forward = streams.console_forward.take();
                streams.stdout = Some(Output { source: Some(output), forward });
                streams.stdin.target = Some(input);
                streams.console = Some(console);
            }
            Err(errno) => {
                self.diagnostics.warn(format_args!("serve a terminal: {errno}"));
            }
        }
        // Clients may have typed already.
        self.flush_stdin(number);
    }

    /// A stream is readable: takes a turn at it.
    pub(super) fn pump_output(&mut self, number: u32, stream: Stream) {
        self.read_output(number, stream, TURN);
        self.compress_log(number);
    }

    /// Reads at most about `limit` bytes of a stream and hands them on.
    pub(super) fn read_output(&mut self, number: u32, stream: Stream, limit: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut total = 0;
        while total < limit && self.may_read(number, stream) {
            let Some(source) = self.output_source(number, stream) else { break };
            match rustix::io::retry_on_intr(|| rustix::io::read(source, &mut *scratch)) {
                Ok(count) if count > 0 => {
                    total += count;
                    self.deliver(number, stream, &scratch[..count]);
                }
                Err(Errno::AGAIN) => break,
                // A terminal answers EIO once nobody holds its other side.
                Ok(_) | Err(_) => {
                    self.end_output(number, stream);
                    break;
                }
            }
        }
        self.scratch = scratch;
        self.update_interest(number);
    }

    fn output_source(&self, number: u32, stream: Stream) -> Option<&Watched> {
        let streams = &self.processes.get(&number)?.streams;
        output_of(streams, stream)?.source.as_ref()
    }

    /// False while somebody who must not lose output is behind.
    fn may_read(&self, number: u32, stream: Stream) -> bool {
        let Some(process) = self.processes.get(&number) else { return false };
        let Some(output) = output_of(&process.streams, stream) else { return false };
        let forward_behind = output.forward.as_ref().is_some_and(Forward::holds_up);
        let client_behind = process.streams.clients.iter().any(|number| {
            self.clients.get(number).is_some_and(|client| client.lossless && client.is_full())
        });
        !forward_behind && !client_behind
    }

    /// Watches each stream exactly while it may be read. (Not even its end is watched otherwise: epoll would report
    /// that without pause.)
    pub(super) fn update_interest(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let interest =
                if self.may_read(number, stream) { EventFlags::IN } else { EventFlags::empty() };
            let output = self
                .processes
                .get_mut(&number)
                .and_then(|it| output_of_mut(&mut it.streams, stream));
            if let Some(source) = output.and_then(|output| output.source.as_mut())
                && let Err(errno) = source.watch(interest)
            {
                self.diagnostics.warn(format_args!("watch a stream: {errno}"));
            }
        }
    }

    fn deliver(&mut self, number: u32, stream: Stream, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        if let Some(log) = &mut streams.log {
            log.write(stream, bytes, Timestamp::now());
        }
        if let Some(tail) = &mut streams.tail {
            tail.push(stream, bytes);
        }
        if let Some(output) = output_of_mut(streams, stream)
            && let Some(forward) = &mut output.forward
            && let Err(errno) = forward.send(bytes)
        {
            self.diagnostics.warn(format_args!("forward output: {errno}"));
            output.forward = None;
        }
        for client in std::mem::take(&mut streams.clients) {
            self.deliver_to_client(number, client, stream, bytes);
        }
    }

    /// A stream has ended: logs its last line and lets its FIFO end once all is forwarded.
    fn end_output(&mut self, number: u32, stream: Stream) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        if let Some(log) = &mut streams.log {
            log.finish(stream, Timestamp::now());
        }
        if let Some(output) = output_of_mut(streams, stream) {
            output.source = None;
            if output.forward.as_mut().is_some_and(|forward| forward.end().is_err()) {
                output.forward = None;
            }
        }
        self.settle_output(number, stream);
        self.settle_clients(number);
    }

    fn settle_output(&mut self, number: u32, stream: Stream) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let slot = match stream {
            Stream::Stdout => &mut process.streams.stdout,
            _ => &mut process.streams.stderr,
        };
        let done = |output: &mut Output| {
            output.source.is_none()
                && output.forward.as_ref().is_none_or(|forward| forward.outbox.is_empty())
        };
        slot.take_if(done);
    }

    /// The target of forwarded output takes more.
    pub(super) fn flush_forward(&mut self, number: u32, stream: Stream) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if let Some(output) = output_of_mut(&mut process.streams, stream)
            && output.forward.as_mut().is_some_and(|forward| forward.flush().is_err())
        {
            output.forward = None;
        }
        self.settle_output(number, stream);
        self.settle_clients(number);
        self.update_interest(number);
    }

    /// Gives input to a process.
    pub(super) fn feed_stdin(&mut self, number: u32, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let stdin = &mut process.streams.stdin;
        if !stdin.wanted || stdin.closing || process.end.is_some() {
            return;
        }
        let Some(target) = &mut stdin.target else {
            // The terminal is yet to come.
            stdin.outbox.push(bytes);
            return;
        };
        let sent = stdin.outbox.send(&*target, &[bytes]);
        let waiting = !stdin.outbox.is_empty();
        if sent.and_then(|()| target.watch(output_interest(waiting))).is_err() {
            // The process closed its input: the rest goes nowhere, as in a shell's pipeline.
            *stdin = crate::process::Input::default();
        }
    }

    /// True while the sources of a process's input should wait.
    pub(super) fn stdin_is_full(&self, number: u32) -> bool {
        self.processes
            .get(&number)
            .is_some_and(|process| process.streams.stdin.outbox.len() >= STDIN_WAITING_MAX)
    }

    /// The process takes more input.
    pub(super) fn flush_stdin(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        if let Some(target) = &mut streams.stdin.target {
            let flushed = streams.stdin.outbox.flush(&*target);
            let waiting = !streams.stdin.outbox.is_empty();
            let failed = flushed.and_then(|_| target.watch(output_interest(waiting))).is_err();
            if failed || (!waiting && streams.stdin.closing) {
                streams.stdin = crate::process::Input::default();
            }
        }
        if !self.stdin_is_full(number) {
            self.resume_input(number);
        }
    }

    /// Ends a process's input after what waits. A terminal has no such end.
    pub(super) fn close_stdin(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let streams = &mut process.streams;
        if let Some(fifo) = &mut streams.stdin_fifo {
            // What is in the FIFO still counts: its end is read after it.
            fifo.hold = None;
            return;
        }
        if process.request.terminal {
            return;
        }
        if streams.stdin.outbox.is_empty() {
            streams.stdin = crate::process::Input::default();
        } else {
            streams.stdin.closing = true;
        }
    }

    /// containerd's FIFO has input.
    pub(super) fn read_stdin_fifo(&mut self, number: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while !self.stdin_is_full(number) {
            let streams = self.processes.get(&number).map(|process| &process.streams);
            let Some(fifo) = streams.and_then(|streams| streams.stdin_fifo.as_ref()) else { break };
            match rustix::io::retry_on_intr(|| rustix::io::read(&fifo.source, &mut *scratch)) {
                Ok(count) if count > 0 => self.feed_stdin(number, &scratch[..count]),
                Err(Errno::AGAIN) => break,
                Ok(_) | Err(_) => {
                    if let Some(process) = self.processes.get_mut(&number) {
                        process.streams.stdin_fifo = None;
                    }
                    self.close_stdin(number);
                    break;
                }
            }
        }
        self.scratch = scratch;
        if self.stdin_is_full(number) {
            self.set_fifo_reading(number, false);
        }
    }

    /// Watches containerd's FIFO for input, or leaves it.
    pub(super) fn set_fifo_reading(&mut self, number: u32, reading: bool) {
        let interest = if reading { EventFlags::IN } else { EventFlags::empty() };
        let process = self.processes.get_mut(&number);
        if let Some(fifo) = process.and_then(|process| process.streams.stdin_fifo.as_mut())
            && let Err(errno) = fifo.source.watch(interest)
        {
            self.diagnostics.warn(format_args!("watch standard input: {errno}"));
        }
    }

    /// Begins to compress a rotated log, if one waits.
    pub(super) fn compress_log(&mut self, number: u32) {
        let log = self.processes.get_mut(&number).and_then(|it| it.streams.log.as_mut());
        let Some(job) = log.and_then(crate::log::Log::compress_job) else { return };
        let (source, target) = job.into_parts();
        let work: Work = Box::new(move |mut kept| {
            let source = kept.pop().map(std::fs::File::from);
            let compressed = source.map(|file| compress(&CompressJob::from_parts(file, target)));
            let reply = match compressed {
                Some(Ok(())) => Reply::default(),
                Some(Err(error)) => {
                    Reply::failure(Status::new(Code::Unknown, format!("compress a log: {error}")))
                }
                None => Reply::failure(Status::new(Code::Internal, "no log to compress")),
            };
            (reply, Vec::new())
        });
        let completion = Completion::Compressed(number);
        self.submit(Task { work, keep: vec![source.into()], completion });
    }
}

pub(super) fn output_interest(waiting: bool) -> EventFlags {
    if waiting { EventFlags::OUT } else { EventFlags::empty() }
}

fn output_of(streams: &Streams, stream: Stream) -> Option<&Output> {
    match stream {
        Stream::Stdout => streams.stdout.as_ref(),
        _ => streams.stderr.as_ref(),
    }
}

fn output_of_mut(streams: &mut Streams, stream: Stream) -> Option<&mut Output> {
    match stream {
        Stream::Stdout => streams.stdout.as_mut(),
        _ => streams.stderr.as_mut(),
    }
}
