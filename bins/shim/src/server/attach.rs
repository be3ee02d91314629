//! Clients of the stdio socket.

use std::time::{Duration, Instant};

use brig_shim_protocol::attach::{AttachReply, AttachRequest, Stream, parse_header};

use super::Shim;
use crate::client::{Received, STALL_MAX};
use crate::connection::Gone;
use crate::poller::EventFlags;
use crate::process::State;
use crate::timers::Timer;

/// How often a client that is behind is looked at.
const STALL_CHECK: Duration = Duration::from_secs(5);

impl Shim {
    /// A client sent something, left, or takes more.
    pub(super) fn client_ready(&mut self, number: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) && self.flush_client(number).is_err() {
            return self.drop_client(number);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) && !flags.contains(EventFlags::IN) {
            return self.drop_client(number);
        }
        if flags.contains(EventFlags::IN) {
            let mut scratch = std::mem::take(&mut self.scratch);
            let received = self.receive_from_client(number, &mut scratch);
            self.scratch = scratch;
            if received.is_err() {
                self.drop_client(number);
            }
        }
    }

    fn flush_client(&mut self, number: u32) -> Result<(), Gone> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        client.flush()?;
        if client.leaving && client.is_flushed() {
            return Err(Gone);
        }
        if let Some(process) = client.process.filter(|_| !client.is_full()) {
            self.update_interest(process);
        }
        Ok(())
    }

    fn receive_from_client(&mut self, number: u32, scratch: &mut [u8]) -> Result<(), Gone> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        let count = match client.receive(scratch)? {
            Received::Bytes(count) => count,
            Received::Nothing => return Ok(()),
            Received::End => return self.client_finished(number),
        };
        let bytes = &scratch[..count];
        if client.process.is_some() {
            return self.client_input(number, bytes);
        }
        if client.leaving {
            return Ok(());
        }
        if let Some((line, used)) = client.take_header(bytes)? {
            self.attach(number, &line)?;
            let rest = &bytes[used..];
            if !rest.is_empty() {
                self.client_input(number, rest)?;
            }
        }
        Ok(())
    }

    fn attach(&mut self, number: u32, line: &[u8]) -> Result<(), Gone> {
        let answer = match parse_header::<AttachRequest>(line) {
            Ok(request) => self.attach_to(number, &request),
            Err(error) => Err(error.to_string()),
        };
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        match answer {
            Ok(process) => {
                client.reply(&AttachReply::Attached { tty: client.raw })?;
                if let Some(process) = self.processes.get_mut(&process) {
                    process.streams.clients.push(number);
                }
                Ok(())
            }
            Err(error) => {
                client.leaving = true;
                client.reply(&AttachReply::Refused { error })?;
                if client.is_flushed() { Err(Gone) } else { Ok(()) }
            }
        }
    }

    fn attach_to(&mut self, number: u32, request: &AttachRequest) -> Result<u32, String> {
        let only = self.containers.keys().next().cloned().unwrap_or_default();
        let id = if request.id.is_empty() { &only } else { &request.id };
        let found = self.find(id, &request.exec_id).map_err(|status| status.message)?;
        let process = self.processes.get(&found).ok_or("the process is gone")?;
        if process.state == State::Stopped {
            return Err(format!("{} has ended", super::service::describe(process)));
        }
        if !process.request.attachable {
            return Err("its streams belong to containerd".to_owned());
        }
        if let Some(client) = self.clients.get_mut(&number) {
            client.process = Some(found);
            client.stdin = request.stdin;
            client.stdout = request.stdout;
            client.stderr = request.stderr;
            client.raw = process.request.terminal;
            // Nobody else keeps an exec's output.
            client.lossless = request.lossless || !process.is_init();
        }
        Ok(found)
    }

    fn client_input(&mut self, number: u32, bytes: &[u8]) -> Result<(), Gone> {
        let Some(client) = self.clients.get(&number) else { return Ok(()) };
        let (Some(process), true) = (client.process, client.stdin) else { return Ok(()) };
        self.feed_stdin(process, bytes);
        if self.stdin_is_full(process)
            && let Some(client) = self.clients.get_mut(&number)
        {
            client.set_reading(false)?;
        }
        Ok(())
    }

    /// The client sends no more. It still gets output, unless it is gone altogether, which a write will tell.
    fn client_finished(&mut self, number: u32) -> Result<(), Gone> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        let Some(process) = client.process else { return Err(Gone) };
        client.set_reading(false)?;
        let had_stdin = std::mem::take(&mut client.stdin);
        if had_stdin {
            self.input_ended(process);
        }
        Ok(())
    }

    fn input_ended(&mut self, process: u32) {
        if self.processes.get(&process).is_some_and(|process| process.streams.stdin.once) {
            self.close_stdin(process);
        }
    }

    /// The process takes input again: reads on from those who have it.
    pub(super) fn resume_input(&mut self, process: u32) {
        self.set_fifo_reading(process, true);
        let streams = self.processes.get(&process).map(|process| &process.streams);
        let clients = streams.map(|streams| streams.clients.clone()).unwrap_or_default();
        for number in clients {
            if let Some(client) = self.clients.get_mut(&number).filter(|client| client.stdin)
                && client.set_reading(true).is_err()
            {
                self.drop_client(number);
            }
        }
    }

    /// Sends output to a client that was taken off its process's list, and puts it back if it stays.
    pub(super) fn deliver_to_client(
        &mut self,
        process: u32,
        number: u32,
        stream: Stream,
        bytes: &[u8],
    ) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.send(stream, bytes).is_err() {
            return self.drop_client(number);
        }
        if !client.is_flushed() && !client.timed {
            client.timed = true;
            self.timers.set(STALL_CHECK, Timer::Stall(number));
        }
        if client.leaving {
            self.diagnostics.debug(format_args!("client {number} was too slow and is dropped"));
            return;
        }
        if let Some(process) = self.processes.get_mut(&process) {
            process.streams.clients.push(number);
        }
    }

    /// Drops a client that has read nothing for too long while something waits for it.
    pub(super) fn check_stall(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.timed = false;
        if client.is_flushed() {
            return;
        }
        let waits_for_it = client.leaving || (client.lossless && client.is_full());
        if waits_for_it && Instant::now() - client.progress >= STALL_MAX {
            let process = client.process;
            self.drop_client(number);
            if let Some(process) = process {
                self.update_interest(process);
            }
            return;
        }
        client.timed = true;
        self.timers.set(STALL_CHECK, Timer::Stall(number));
    }

    /// Forgets a client; a process whose input it held may lose that.
    pub(super) fn drop_client(&mut self, number: u32) {
        let Some(client) = self.clients.remove(&number) else { return };
        client.discard_input();
        let Some(process) = client.process else { return };
        if let Some(process) = self.processes.get_mut(&process) {
            process.streams.clients.retain(|&each| each != number);
        }
        if client.stdin {
            self.input_ended(process);
        }
        self.update_interest(process);
    }

    /// Lets the clients of an ended process go once no more output can come.
    pub(super) fn settle_clients(&mut self, number: u32) {
        let Some(process) = self.processes.get(&number) else { return };
        if process.state == State::Stopped && process.streams.ended() {
            self.release_clients(number);
        }
    }

    /// The process ended a while ago and something else keeps its streams.
    pub(super) fn stop_lingering(&mut self, number: u32) {
        let Some(process) = self.processes.get(&number) else { return };
        if process.streams.ended() {
            return;
        }
        let behind = process.streams.clients.iter().any(|client| {
            self.clients.get(client).is_some_and(|client| client.lossless && !client.is_flushed())
        });
        if behind {
            // Its own output is still on its way to a client that takes its time.
            self.timers.set(STALL_CHECK, Timer::Linger(number));
        } else {
            self.release_clients(number);
        }
    }

    /// Sends the clients of a process what is queued for them, then the end.
    pub(super) fn release_clients(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        for client_number in std::mem::take(&mut process.streams.clients) {
            let Some(client) = self.clients.get_mut(&client_number) else { continue };
            client.leaving = true;
            client.stdin = false;
            if client.is_flushed() {
                self.drop_client(client_number);
            } else if !client.timed {
                client.timed = true;
                self.timers.set(STALL_CHECK, Timer::Stall(client_number));
            }
        }
    }

    /// Ends all streams of a process that is about to be forgotten.
    pub(super) fn finish_streams(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(number, stream, usize::from(u16::MAX));
        }
        self.release_clients(number);
        let Some(process) = self.processes.get_mut(&number) else { return };
        if let Some(log) = &mut process.streams.log {
            let now = brig_shim_protocol::Timestamp::now();
            log.finish(Stream::Stdout, now);
            log.finish(Stream::Stderr, now);
        }
        self.hand_over_to_loggers(number);
    }
}
