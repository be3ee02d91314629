//! Synchronous netlink: framing, requests with acknowledgement, dumps, and nfnetlink batches.
//!
//! A [`Socket`] belongs to the network namespace it was opened in, whatever its thread does later (netlink(7)); so
//! [`Socket::open_in`] enters a namespace only on a throw-away thread. The kernel answers within the sender's own
//! system call, hence nothing here waits for anybody but the kernel.
//!
//! ```text
//! request   header flags REQUEST|ACK         →  NLMSG_ERROR (0 = done, else errno + ext-ack text)
//! dump      header flags REQUEST|DUMP        →  messages …, NLMSG_DONE (restarted when it was interrupted)
//! transact  BATCH_BEGIN, messages, BATCH_END →  one NLMSG_ERROR per failed message, an ack for the last one
//! ```
//!
//! Limits: an answer is read into 64 KiB (the kernel never fills more), a dump keeps at most [`DUMP_LIMIT`] messages.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use std::{fmt, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

mod device;

pub use device::move_device;

use crate::{Error, Result};

/// The most messages that one dump collects: far beyond the links, addresses and routes of a busy host.
pub const DUMP_LIMIT: usize = 262_144;

const HEADER_LENGTH: usize = 16;
const RECEIVE_LENGTH: usize = 64 * 1024;
/// Batches larger than the default send buffer get a larger one, up to here.
const BATCH_LIMIT: usize = 32 * 1024 * 1024;
const DUMP_ATTEMPTS: usize = 8;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The subsystem that a socket speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Links, addresses, routes, neighbours: rtnetlink(7).
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A bound netlink socket.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) and bind(2) report.
    pub fn open(protocol: Protocol) -> Result<Self> {
        let number = match protocol {
            Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
        };
        Self::open_number(number)
            .map_err(|cause| Error::system(format!("open a {protocol:?} netlink socket"), cause))
    }

    /// Opens a socket inside the network namespace `netns`; the caller stays where it is.
    ///
    /// # Errors
    /// What setns(2), socket(2) and bind(2) report.
    pub fn open_in(netns: BorrowedFd<'_>, protocol: Protocol) -> Result<Self> {
        crate::namespace::in_namespace(netns, || Self::open(protocol))?
    }

    fn open_number(number: isize) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(number)?;
        inner.bind_auto()?;
        // Both are refinements of error reports; kernels before 4.12 lack the second.
        let _ = inner.set_cap_ack(true);
        let _ = inner.set_ext_ack(true);
        sockopt::set_socket_timeout(&inner, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { inner, sequence: 0, buffer: vec![0; RECEIVE_LENGTH] })
    }

    /// Sends one message and waits for its acknowledgement. `operation` begins the error's text.
    ///
    /// # Errors
    /// The kernel's error, with its explanation where it gave one.
    pub fn request<M: NetlinkSerializable>(
        &mut self,
        operation: &str,
        message: &M,
        flags: u16,
    ) -> Result<()> {
        self.request_raw(operation, message.message_type(), flags, &body_of(message))
    }

    /// [`request`](Self::request) for a body that was encoded elsewhere.
    ///
    /// # Errors
    /// The kernel's error, with its explanation where it gave one.
    pub fn request_raw(
        &mut self,
        operation: &str,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> Result<()> {
        let sequence = self.next_sequence();
        let frame = frame(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, body);
        self.send(operation, &frame)?;
        loop {
            let received = self.receive(operation)?;
            for reply in Replies::new(received) {
                let reply = reply.map_err(|cause| Error::system(operation, cause))?;
                if reply.sequence != sequence {
                    continue;
                }
                if let Kind::Error(refusal) = reply.kind {
                    return refusal
                        .map_or(Ok(()), |refusal| Err(refusal.into_error(operation.into())));
                }
            }
        }
    }

    /// Asks for the one object that `message` names.
    ///
    /// # Errors
    /// The kernel's error; `NotFound` when there is none.
    pub fn get<M>(&mut self, operation: &str, message: &M) -> Result<M>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let (header, payload) =
            self.get_raw(operation, message.message_type(), &body_of(message))?;
        M::deserialize(&header, &payload).map_err(|cause| {
            Error::system(operation, io::Error::new(io::ErrorKind::InvalidData, cause))
        })
    }

    /// [`get`](Self::get) for a body that was encoded elsewhere; answers the object undecoded.
    ///
    /// # Errors
    /// The kernel's error; `NotFound` when there is none.
    pub fn get_raw(
        &mut self,
        operation: &str,
        kind: u16,
        body: &[u8],
    ) -> Result<(NetlinkHeader, Vec<u8>)> {
        let sequence = self.next_sequence();
        let frame = frame(kind, NLM_F_REQUEST, sequence, body);
        self.send(operation, &frame)?;
        loop {
            let received = self.receive(operation)?;
            for reply in Replies::new(received) {
                let reply = reply.map_err(|cause| Error::system(operation, cause))?;
                match reply.kind {
                    _ if reply.sequence != sequence => {}
                    Kind::Message { header, payload } => return Ok((header, payload.to_vec())),
                    Kind::Error(Some(refusal)) => return Err(refusal.into_error(operation.into())),
                    Kind::Error(None) | Kind::Done => {
                        return Err(Error::system(operation, Errno::NOENT));
                    }
                }
            }
        }
    }

    /// Asks for all objects that match `message`.
    ///
    /// # Errors
    /// The kernel's error; `EBUSY` when the objects changed under [every attempt](https://docs.kernel.org/userspace-api/netlink/intro.html)
    /// to list them; `EMSGSIZE` past [`DUMP_LIMIT`].
    pub fn dump<M>(&mut self, operation: &str, message: &M) -> Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let body = body_of(message);
        for _ in 0..DUMP_ATTEMPTS {
            let mut messages = Vec::new();
            let mut failure = None;
            let whole =
                self.dump_raw(operation, message.message_type(), &body, &mut |header, payload| {
                    match M::deserialize(header, payload) {
                        Ok(_) if messages.len() == DUMP_LIMIT => {
                            failure = Some(Errno::MSGSIZE.into());
                        }
                        Ok(message) => messages.push(message),
                        Err(cause) => {
                            failure = Some(io::Error::new(io::ErrorKind::InvalidData, cause));
                        }
                    }
                })?;
            match failure {
                Some(cause) => return Err(Error::system(operation, cause)),
                None if whole => return Ok(messages),
                None => {}
            }
        }
        Err(Error::system(operation, Errno::BUSY))
    }

    /// Streams a dump without keeping it; returns whether it is consistent (not interrupted by changes).
    ///
    /// # Errors
    /// The kernel's error.
    pub fn dump_raw(
        &mut self,
        operation: &str,
        kind: u16,
        body: &[u8],
        visit: &mut dyn FnMut(&NetlinkHeader, &[u8]),
    ) -> Result<bool> {
        let sequence = self.next_sequence();
        let frame = frame(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body);
        self.send(operation, &frame)?;
        let mut whole = true;
        loop {
            let received = self.receive(operation)?;
            for reply in Replies::new(received) {
                let reply = reply.map_err(|cause| Error::system(operation, cause))?;
                if reply.sequence != sequence {
                    continue;
                }
                whole &= reply.flags & NLM_F_DUMP_INTR == 0;
                match reply.kind {
                    Kind::Done | Kind::Error(None) => return Ok(whole),
                    Kind::Error(Some(refusal)) => return Err(refusal.into_error(operation.into())),
                    Kind::Message { header, payload } => visit(&header, payload),
                }
            }
        }
    }

    /// Sends a batch that the kernel applies as a whole or not at all.
    ///
    /// # Errors
    /// The first message that was refused, by its own description.
    pub fn transact(&mut self, batch: &Batch) -> Result<()> {
        if batch.messages.is_empty() {
            return Ok(());
        }
        let first = self.next_sequence();
        let (bytes, last) = batch.encode(first);
        self.sequence = last.wrapping_add(1);
        let operation = "apply a netfilter transaction";
        if bytes.len() > BATCH_LIMIT {
            return Err(Error::system(operation, Errno::MSGSIZE));
        }
        if bytes.len() > 64 * 1024 {
            let _ = sockopt::set_socket_send_buffer_size_force(&self.inner, bytes.len() * 2);
            let _ = sockopt::set_socket_recv_buffer_size_force(&self.inner, bytes.len() * 2);
        }
        self.send(operation, &bytes)?;
        let mut refused: Option<(u32, Refusal)> = None;
        loop {
            let received = match self.receive(operation) {
                Ok(received) => received,
                // The answer to the last message may be lost when a huge batch failed at every message.
                Err(error) => {
                    return Err(
                        refused.map_or(error, |(at, refusal)| batch.refusal(at, first, refusal))
                    );
                }
            };
            let mut finished = false;
            for reply in Replies::new(received) {
                let reply = reply.map_err(|cause| Error::system(operation, cause))?;
                let sequence = reply.sequence;
                let Kind::Error(refusal) = reply.kind else { continue };
                if !(first..=last).contains(&sequence) {
                    continue;
                }
                // The kernel answers for BEGIN when it could not commit.
                finished |= sequence == last || (sequence == first && refusal.is_some());
                if let Some(refusal) = refusal {
                    refused.get_or_insert((sequence, refusal));
                }
            }
            if finished {
                return refused
                    .map_or(Ok(()), |(at, refusal)| Err(batch.refusal(at, first, refusal)));
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        // Wrapped early, so that a batch's numbers are always ascending.
        self.sequence = if self.sequence > u32::MAX / 2 { 1 } else { self.sequence + 1 };
        self.sequence
    }

    fn send(&self, operation: &str, bytes: &[u8]) -> Result<()> {
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::send(&self.inner, bytes, SendFlags::empty()));
        sent.map(drop).map_err(|errno| Error::system(operation, errno))
    }

    fn receive(&mut self, operation: &str) -> Result<&[u8]> {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.inner, &mut self.buffer[..], RecvFlags::TRUNC)
        });
        let (_, length) = received.map_err(|errno| Error::system(operation, errno))?;
        self.buffer.get(..length).ok_or_else(|| Error::system(operation, Errno::MSGSIZE))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Sets the loopback link of the socket's namespace up.
///
/// # Errors
/// The kernel's error.
pub fn set_loopback_up(socket: &mut Socket) -> Result<()> {
    let mut message = LinkMessage::default();
    // Loopback has index 1 in every namespace (LOOPBACK_IFINDEX, net/flow.h).
    message.header.index = 1;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    socket.request("set loopback up", &RouteNetlinkMessage::SetLink(message), 0)
}

/// Messages for one nfnetlink transaction.
#[derive(Debug, Default)]
pub struct Batch {
    subsystem: u16,
    messages: Vec<BatchMessage>,
}

#[derive(Debug)]
struct BatchMessage {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
    description: String,
}

impl Batch {
    /// An empty batch for a subsystem (`NFNL_SUBSYS_NFTABLES` is 10).
    #[must_use]
    pub fn new(subsystem: u8) -> Self {
        Self { subsystem: u16::from(subsystem), messages: Vec::new() }
    }

    /// Adds a message: its type within the subsystem, header flags, and everything after the netlink header.
    /// `description` begins the error's text when the kernel refuses it.
    pub fn push(&mut self, kind: u8, flags: u16, body: Vec<u8>, description: impl Into<String>) {
        let kind = self.subsystem << 8 | u16::from(kind);
        self.messages.push(BatchMessage { kind, flags, body, description: description.into() });
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The batch's bytes, numbered from `first` (BEGIN), and the number of its last message before END.
    fn encode(&self, first: u32) -> (Vec<u8>, u32) {
        let [low, high] = self.subsystem.to_be_bytes();
        // struct nfgenmsg: AF_UNSPEC, version 0, the subsystem in network order.
        let marker = [0, 0, low, high];
        let mut bytes = frame(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first, &marker);
        let mut sequence = first;
        for (position, message) in self.messages.iter().enumerate() {
            sequence += 1;
            // One acknowledgement, for the last message, ends the answer; errors come for any.
            let ack = if position + 1 == self.messages.len() { NLM_F_ACK } else { 0 };
            bytes.extend(frame(
                message.kind,
                message.flags | NLM_F_REQUEST | ack,
                sequence,
                &message.body,
            ));
        }
        bytes.extend(frame(NFNL_MSG_BATCH_END, NLM_F_REQUEST, sequence + 1, &marker));
        (bytes, sequence)
    }

    fn refusal(&self, sequence: u32, first: u32, refusal: Refusal) -> Error {
        let position = sequence.wrapping_sub(first).wrapping_sub(1);
        let message =
            usize::try_from(position).ok().and_then(|position| self.messages.get(position));
        let description =
            message.map_or("commit a netfilter transaction", |message| &message.description);
        refusal.into_error(description.to_owned())
    }
}

fn body_of<M: NetlinkSerializable>(message: &M) -> Vec<u8> {
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    body
}

/// struct nlmsghdr and a body, padded to NLMSG_ALIGNTO.
fn frame(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER_LENGTH + body.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// One decoded message of an answer.
struct Reply<'a> {
    sequence: u32,
    flags: u16,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Message {
        header: NetlinkHeader,
        payload: &'a [u8],
    },
    /// `None` acknowledges.
    Error(Option<Refusal>),
    Done,
}

struct Refusal {
    errno: i32,
    explanation: Option<String>,
}

impl Refusal {
    fn into_error(self, operation: String) -> Error {
        let attempt = match self.explanation {
            Some(text) => format!("{operation} (the kernel says: {text})"),
            None => operation,
        };
        Error::system(attempt, io::Error::from_raw_os_error(self.errno))
    }
}

/// The messages of one datagram. Ends at the first malformed one, with an error.
struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = io::Result<Reply<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let Some((header, payload, rest)) = split_message(self.rest) else {
                self.rest = &[];
                return Some(Err(malformed("a truncated netlink message")));
            };
            self.rest = rest;
            let kind = match header.message_type {
                NLMSG_NOOP => continue,
                NLMSG_OVERRUN => return Some(Err(Errno::NOBUFS.into())),
                NLMSG_ERROR => decode_error(header.flags, payload).map(Kind::Error),
                // A dump that failed midway says so in its end mark.
                NLMSG_DONE => {
                    match payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                        0 => Ok(Kind::Done),
                        _ => decode_error(header.flags, payload).map(Kind::Error),
                    }
                }
                _ => Ok(Kind::Message { header, payload }),
            };
            let flags = header.flags;
            return Some(kind.map(|kind| Reply { sequence: header.sequence_number, flags, kind }));
        }
    }
}

/// Splits the first message off: its header, its payload, and what follows.
fn split_message(bytes: &[u8]) -> Option<(NetlinkHeader, &[u8], &[u8])> {
    let head: &[u8; HEADER_LENGTH] = bytes.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let length = usize::try_from(word(0)).ok()?;
    let payload = bytes.get(HEADER_LENGTH..length)?;
    let rest = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or(&[]);
    let mut header = NetlinkHeader::default();
    header.length = word(0);
    header.message_type = half(4);
    header.flags = half(6);
    header.sequence_number = word(8);
    header.port_number = word(12);
    Some((header, payload, rest))
}

/// struct nlmsgerr: the negative errno, the request's header, its body unless capped, then attributes.
fn decode_error(flags: u16, payload: &[u8]) -> io::Result<Option<Refusal>> {
    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code));
    let code = code.ok_or_else(|| malformed("a netlink error without a code"))?;
    if code == 0 {
        return Ok(None);
    }
    let errno = code
        .checked_neg()
        .filter(|errno| *errno > 0)
        .ok_or_else(|| malformed("a positive netlink error"))?;
    let mut explanation = None;
    if flags & NLM_F_ACK_TLVS != 0
        && let Some(request) = payload.get(4..).and_then(request_length)
    {
        let skip = if flags & NLM_F_CAPPED == 0 { request } else { HEADER_LENGTH };
        explanation = payload.get(4 + skip.next_multiple_of(4)..).and_then(find_explanation);
    }
    Ok(Some(Refusal { errno, explanation }))
}

/// The length that the echoed request claims; its body may be missing.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let length: &[u8; 4] = bytes.first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    (HEADER_LENGTH..=BATCH_LIMIT).contains(&length).then_some(length)
}

fn find_explanation(mut attributes: &[u8]) -> Option<String> {
    loop {
        let head: &[u8; 4] = attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = value.split(|byte| *byte == 0).next().unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Entry points for fuzzers; no part of the interface.
#[doc(hidden)]
pub mod fuzzing {
    use netlink_packet_core::NetlinkDeserializable;
    use netlink_packet_route::RouteNetlinkMessage;

    /// Decodes one datagram as an answer of rtnetlink.
    pub fn decode_answer(bytes: &[u8]) {
        for reply in super::Replies::new(bytes).flatten() {
            if let super::Kind::Message { header, payload } = reply.kind {
                let _ = RouteNetlinkMessage::deserialize(&header, payload);
            }
        }
    }
}

#[cfg(test)]
mod tests;
