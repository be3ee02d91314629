//! A client of the task service: frames in, answers out.

use std::os::fd::OwnedFd;

use brig_shim_protocol::ttrpc::{Decoder, Frame, Kind, Response, Status, encode_frame};
use rustix::io::Errno;

use crate::outbox::Outbox;
use crate::poller::{EventFlags, Watched};

/// Answers that may wait for a client that does not read them; it is dropped beyond.
const OUTBOX_LENGTH_MAX: usize = 16 << 20;

/// A connection to the task socket.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Watched,
    decoder: Decoder,
    outbox: Outbox,
}

/// The peer left, or spoke another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Connection {
    /// Serves a connected, non-blocking socket.
    pub(crate) fn new(mut socket: Watched) -> Result<Self, Gone> {
        socket.watch(EventFlags::IN).map_err(|_| Gone)?;
        Ok(Self { socket, decoder: Decoder::new(), outbox: Outbox::default() })
    }

    /// Takes what came, at most one buffer full, and hands out the frames that are whole.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Vec<Frame>, Gone> {
        let mut frames = Vec::new();
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut *buffer)) {
            Ok(0) => return Err(Gone),
            Ok(count) => {
                let mut input = &buffer[..count];
                while let Some(frame) = self.decoder.next(&mut input).map_err(|_| Gone)? {
                    frames.push(frame);
                }
            }
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Gone),
        }
        Ok(frames)
    }

    /// Answers a call.
    pub(crate) fn respond(
        &mut self,
        stream: u32,
        answer: Result<Vec<u8>, Status>,
    ) -> Result<(), Gone> {
        let response = match answer {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(status), payload: Vec::new() },
        };
        let frame = encode_frame(Kind::Response, stream, &response).map_err(|_| Gone)?;
        self.outbox.send(&self.socket, &[&frame]).map_err(|_| Gone)?;
        self.settle()
    }

    /// Goes on writing.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        self.outbox.flush(&self.socket).map_err(|_| Gone)?;
        self.settle()
    }

    /// True when every answer is on its way.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    fn settle(&mut self) -> Result<(), Gone> {
        if self.outbox.len() > OUTBOX_LENGTH_MAX {
            return Err(Gone);
        }
        self.socket.toggle(EventFlags::OUT, !self.outbox.is_empty()).map_err(|_| Gone)
    }
}

/// Accepts one connection; `None` when none waits.
pub(crate) fn accept(listener: &Watched) -> rustix::io::Result<Option<OwnedFd>> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::io::retry_on_intr(|| rustix::net::accept_with(listener, flags)) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
        Err(errno) => Err(errno),
    }
}
