//! A client of the stdio socket.
//!
//! ```text
//! Header ──AttachRequest──▶ Attached ──process ended, output sent──▶ gone
//!                             │ outbox over the limit
//!                             ▼
//!                           Leaving (gets a last message and what was queued, no more)
//! ```
//!
//! Limits: [`OUTBOX_LENGTH_MAX`] bytes wait for a client. Beyond that it is dropped, or, when it asked to lose nothing,
//! the process waits for it as for any pipe, until it has read nothing for [`STALL_MAX`].

use std::time::{Duration, Instant};

use brig_shim_protocol::attach::{AttachReply, HEADER_LENGTH_MAX, Stream, frame_header};
use rustix::io::Errno;

use crate::connection::Gone;
use crate::outbox::Outbox;
use crate::poller::{EventFlags, Watched};

/// Output that may wait for one client.
pub(crate) const OUTBOX_LENGTH_MAX: usize = 256 << 10;

/// How long a client may read nothing while a process waits for it, or while it is being dropped.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

const DROPPED: &[u8] =
    b"brig: this client was detached: it did not read its output fast enough\r\n";

/// What arrived from a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// It will send no more.
    End,
}

/// A client of the stdio socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Watched,
    /// The header line as far as it came.
    pub(crate) header: Vec<u8>,
    /// The process it is attached to, once it is.
    pub(crate) process: Option<u32>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Output is raw: the process has a terminal.
    pub(crate) raw: bool,
    pub(crate) lossless: bool,
    /// It gets what is queued and then the end.
    pub(crate) leaving: bool,
    /// When it last took anything.
    pub(crate) progress: Instant,
    /// A stall timer runs.
    pub(crate) timed: bool,
    outbox: Outbox,
}

impl Client {
    /// Serves a connected, non-blocking socket.
    pub(crate) fn new(mut socket: Watched) -> Result<Self, Gone> {
        socket.watch(EventFlags::IN).map_err(|_| Gone)?;
        Ok(Self {
            socket,
            header: Vec::new(),
            process: None,
            stdin: false,
            stdout: false,
            stderr: false,
            raw: false,
            lossless: false,
            leaving: false,
            progress: Instant::now(),
            timed: false,
            outbox: Outbox::default(),
        })
    }

    /// Takes what came.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Received, Gone> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut *buffer)) {
            Ok(0) => Ok(Received::End),
            Ok(count) => Ok(Received::Bytes(count)),
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(_) => Err(Gone),
        }
    }

    /// Adds to the header line; answers the line and what follows it once it is whole.
    pub(crate) fn take_header(&mut self, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Gone> {
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        self.header.extend_from_slice(&bytes[..newline.unwrap_or(bytes.len())]);
        if self.header.len() > HEADER_LENGTH_MAX {
            return Err(Gone);
        }
        Ok(newline.map(|at| (std::mem::take(&mut self.header), at + 1)))
    }

    /// Sends the reply line.
    pub(crate) fn reply(&mut self, reply: &AttachReply) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(reply).map_err(|_| Gone)?;
        line.push(b'\n');
        self.outbox.send(&self.socket, &[&line]).map_err(|_| Gone)?;
        self.settle()
    }

    /// Sends output of the process, if the client wants it.
    pub(crate) fn send(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Gone> {
        let wanted = match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
            Stream::System => true,
        };
        if !wanted || self.leaving {
            return Ok(());
        }
        let before = self.outbox.len();
        self.queue(stream, bytes)?;
        if self.outbox.len() < before + bytes.len() {
            self.progress = Instant::now();
        }
        if self.is_full() && !self.lossless {
            self.queue(Stream::System, DROPPED)?;
            self.leaving = true;
        }
        self.settle()
    }

    fn queue(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Gone> {
        let length = u32::try_from(bytes.len()).map_err(|_| Gone)?;
        let header = frame_header(stream, length);
        let header: &[u8] = if self.raw { &[] } else { &header };
        self.outbox.send(&self.socket, &[header, bytes]).map_err(|_| Gone)
    }

    /// Goes on writing.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        if self.outbox.flush(&self.socket).map_err(|_| Gone)? {
            self.progress = Instant::now();
        }
        self.settle()
    }

    /// True when no more should be queued.
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.len() > OUTBOX_LENGTH_MAX
    }

    /// True when all that was queued is sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Takes input or leaves it in the socket, so that a client waits as on any pipe.
    pub(crate) fn set_reading(&mut self, reading: bool) -> Result<(), Gone> {
        // The peer's full close is reported in any case, as long as something is watched.
        let flag = if reading { EventFlags::IN } else { EventFlags::ERR };
        let output = self.socket.interest() & EventFlags::OUT;
        self.socket.watch(flag | output).map_err(|_| Gone)
    }

    /// Takes and forgets what the client sent last: closing a socket with unread bytes would look to the peer like a
    /// broken connection instead of an end.
    pub(crate) fn discard_input(&self) {
        let mut buffer = [0; 1024];
        while let Ok(Received::Bytes(_)) = self.receive(&mut buffer) {}
    }

    fn settle(&mut self) -> Result<(), Gone> {
        self.socket.toggle(EventFlags::OUT, !self.outbox.is_empty()).map_err(|_| Gone)
    }
}
