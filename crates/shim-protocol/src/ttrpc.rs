//! ttrpc's wire format: frames of a 10-byte header and a protobuf payload, unary calls only.
//!
//! ```text
//! 0        4         8    9     10
//! | length | stream  |kind|flags| payload (length bytes) …
//!   u32 be   u32 be
//! ```
//!
//! A client's stream ids are odd and rise; a response carries its request's. Limits: [`MESSAGE_LENGTH_MAX`] per
//! payload, as in every other implementation; a [`Decoder`] holds at most one frame.

use prost::Message;

use crate::error::{Cause, Error, Result};
use crate::types::Any;

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 10;

/// Longest payload in bytes.
pub const MESSAGE_LENGTH_MAX: usize = 4 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`Request`].
    Request = 1,
    /// A [`Response`].
    Response = 2,
    /// Data of a stream; no method of the task API streams.
    Data = 3,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload length in bytes.
    pub length: u32,
    /// Which call it belongs to.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// Stream flags; unary calls need none.
    pub flags: u8,
}

impl Header {
    /// The header on the wire.
    pub fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8] = self.kind as u8;
        bytes[9] = self.flags;
        bytes
    }

    /// Parses and checks a header.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown kind, `Exhausted` for a length over the limit.
    pub fn parse(bytes: [u8; HEADER_LENGTH]) -> Result<Self> {
        let [a, b, c, d, e, f, g, h, kind, flags] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        let stream = u32::from_be_bytes([e, f, g, h]);
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            kind => return Err(Cause::FrameKind { kind }.into()),
        };
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        check_length(bytes)?;
        Ok(Self { length, stream, kind, flags })
    }
}

fn check_length(length: usize) -> Result<()> {
    if length > MESSAGE_LENGTH_MAX {
        return Err(Cause::FrameTooLong { length, limit: MESSAGE_LENGTH_MAX }.into());
    }
    Ok(())
}

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which call it belongs to.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// Stream flags.
    pub flags: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Encodes one frame, ready to be written.
///
/// # Errors
/// `Exhausted` when the message is over the limit.
pub fn encode_frame(kind: Kind, stream: u32, message: &impl Message) -> Result<Vec<u8>> {
    let length = message.encoded_len();
    check_length(length)?;
    let header =
        Header { length: u32::try_from(length).unwrap_or(u32::MAX), stream, kind, flags: 0 };
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + length);
    bytes.extend_from_slice(&header.to_bytes());
    message.encode_raw(&mut bytes);
    Ok(bytes)
}

/// Cuts a byte stream into frames, however it arrives.
///
/// The buffer grows with the bytes that came, never by what a header promises, and is freed with each frame.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from `input`, which it advances, until a frame is whole.
    ///
    /// Returns `None` when all input is taken and the frame is not whole yet.
    ///
    /// # Errors
    /// As [`Header::parse`]; the stream cannot be followed further.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>> {
        self.take(input, HEADER_LENGTH);
        let Some(header) = self.buffer.first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let header = Header::parse(*header)?;
        let whole = HEADER_LENGTH + usize::try_from(header.length).unwrap_or(usize::MAX);
        self.take(input, whole);
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut payload = std::mem::take(&mut self.buffer);
        payload.drain(..HEADER_LENGTH);
        Ok(Some(Frame { stream: header.stream, kind: header.kind, flags: header.flags, payload }))
    }

    /// True when no part of a frame is held.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn take(&mut self, input: &mut &[u8], until: usize) {
        let count = until.saturating_sub(self.buffer.len()).min(input.len());
        let (taken, rest) = input.split_at(count);
        self.buffer.extend_from_slice(taken);
        *input = rest;
    }
}

/// A call.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Service name.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Method name.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded argument.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits, in nanoseconds; 0 is for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// Metadata.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// A pair of metadata.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An answer: a status that is not `Ok`, or a payload.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Absent or `Ok` on success.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The encoded result.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// What sort of failure.
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Further messages.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

impl Status {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: Vec::new() }
    }
}

impl Response {
    /// The payload, or the status as an error of a call to `method`.
    ///
    /// # Errors
    /// The status, when it is not `Ok`.
    pub fn into_payload(self, method: &str) -> Result<Vec<u8>> {
        match self.status {
            Some(status) if status.code != Code::Ok as i32 => {
                let code = Code::try_from(status.code).unwrap_or(Code::Unknown);
                let message = status.message;
                Err(Error::from(Cause::Status { method: method.to_owned(), code, message }))
            }
            _ => Ok(self.payload),
        }
    }
}

/// gRPC's canonical codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// A failure without a better code.
    Unknown = 2,
    /// A malformed argument.
    InvalidArgument = 3,
    /// Too late.
    DeadlineExceeded = 4,
    /// No such object.
    NotFound = 5,
    /// The object exists already.
    AlreadyExists = 6,
    /// Not allowed.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The object's state does not permit it.
    FailedPrecondition = 9,
    /// Lost a race.
    Aborted = 10,
    /// Past the end.
    OutOfRange = 11,
    /// No such method, or not supported.
    Unimplemented = 12,
    /// Broken inside.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Data is lost.
    DataLoss = 15,
    /// Who are you?
    Unauthenticated = 16,
}

#[cfg(test)]
mod tests;
