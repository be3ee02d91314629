//! A D-Bus client as small as systemd needs it: EXTERNAL authentication, method calls, and the signals that arrive between.
//!
//! Blocking, one call at a time, with a time limit for each read. Written after the D-Bus specification 0.42; only
//! little-endian messages, which every bus passes on as they are and systemd on the same machine sends.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a peer may stay silent in the middle of a call or a job.
const PATIENCE: Duration = Duration::from_secs(30);
/// Replies of systemd are a few hundred bytes.
const MESSAGE_LIMIT: usize = 1 << 20;
/// Longest line of the authentication dialogue.
const LINE_LIMIT: usize = 1024;
/// Signals kept while a reply is awaited.
const SIGNAL_LIMIT: usize = 1024;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A connection to a bus, or to systemd's private socket.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

/// A value with its type, as method arguments need it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Text(String),
    /// `as`.
    Texts(Vec<String>),
    U32s(Vec<u32>),
    /// `a(ss)`.
    Pairs(Vec<(String, String)>),
    /// `ay`.
    Bytes(Vec<u8>),
}

/// Whom to ask for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A received message: what the header says, and the body.
#[derive(Debug, Default)]
pub(super) struct Message {
    kind: u8,
    reply_serial: u32,
    pub(super) member: String,
    error: String,
    body: Vec<u8>,
}

/// What the other side answered, or that it did not.
#[derive(Debug)]
pub(super) enum CallError {
    /// A D-Bus error: its name and text.
    Refused {
        name: String,
        text: String,
    },
    Io(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Bus {
    /// Connects to a bus daemon and says hello.
    pub(super) fn connect(socket: &Path) -> Result<Self, CallError> {
        let mut bus = Self::connect_peer(socket)?;
        let hello = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        bus.call(hello, "", &[])?;
        Ok(bus)
    }

    /// Connects to a program that speaks D-Bus itself, without a bus between.
    pub(super) fn connect_peer(socket: &Path) -> io::Result<Self> {
        Self::authenticate(UnixStream::connect(socket)?)
    }

    fn authenticate(mut stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let user = super::own_user().to_string();
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_LIMIT {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, serial: 0, signals: VecDeque::new() })
    }

    /// Calls a method and waits for its answer. `body` is encoded by a [`Writer`] according to `signature`.
    pub(super) fn call(
        &mut self,
        method: Method<'_>,
        signature: &str,
        body: &[u8],
    ) -> Result<Message, CallError> {
        self.serial += 1;
        self.stream.write_all(&encode_call(self.serial, method, signature, body)?)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                SIGNAL => {
                    if self.signals.len() == SIGNAL_LIMIT {
                        self.signals.pop_front();
                    }
                    self.signals.push_back(message);
                }
                METHOD_RETURN if message.reply_serial == self.serial => return Ok(message),
                ERROR if message.reply_serial == self.serial => {
                    let text = message.reader().text().unwrap_or_default();
                    return Err(CallError::Refused { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(super) fn signal(&mut self) -> io::Result<Message> {
        if let Some(message) = self.signals.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut fixed = [0_u8; 16];
        self.stream.read_exact(&mut fixed)?;
        let word = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        let (body, fields) = (size(word(4)), size(word(12)));
        if fixed[0] != b'l' || body > MESSAGE_LIMIT || fields > MESSAGE_LIMIT {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        // The header ends at a multiple of eight.
        let mut rest = vec![0; fields.next_multiple_of(8)];
        self.stream.read_exact(&mut rest)?;
        rest.truncate(fields);
        let mut message = Message { kind: fixed[1], ..Message::default() };
        message.read_fields(&rest).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        message.body = vec![0; body];
        self.stream.read_exact(&mut message.body)?;
        Ok(message)
    }
}

impl Message {
    /// Reads the body from its start.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }

    /// The header's array of (code, variant) structures.
    fn read_fields(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes, at: 0 };
        while reader.at < bytes.len() {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (3, "s") => self.member = reader.text()?,
                (4, "s") => self.error = reader.text()?,
                (5, "u") => self.reply_serial = reader.number()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.number()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        Some(())
    }
}

/// Decodes the few types that answers have.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// A string or an object path.
    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(super) fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Option<String> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length + 1;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// Encodes values with D-Bus's alignment, which counts from the start of the body.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn number(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A string or an object path.
    pub(super) fn text(&mut self, text: &str) {
        self.number(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length counts from its first element, whose alignment comes after the length.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let size = length(self.bytes.len() - start).to_le_bytes();
        self.bytes[length_at..length_at + 4].copy_from_slice(&size);
    }

    pub(super) fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.number(u32::from(*value));
            }
            Value::U64(value) => {
                self.signature("t");
                self.align(8);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::I32(value) => {
                self.signature("i");
                self.align(4);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::U32(value) => {
                self.signature("u");
                self.number(*value);
            }
            Value::I64(value) => {
                self.signature("x");
                self.align(8);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::Texts(texts) => {
                self.signature("as");
                self.array(4, |writer| texts.iter().for_each(|text| writer.text(text)));
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::U32s(values) => {
                self.signature("au");
                self.array(4, |writer| values.iter().for_each(|value| writer.number(*value)));
            }
            Value::Bytes(values) => {
                self.signature("ay");
                self.array(1, |writer| writer.bytes.extend(values));
            }
            Value::Pairs(pairs) => {
                self.signature("a(ss)");
                self.array(8, |writer| {
                    for (first, second) in pairs {
                        writer.align(8);
                        writer.text(first);
                        writer.text(second);
                    }
                });
            }
        }
    }
}

fn encode_call(
    serial: u32,
    method: Method<'_>,
    signature: &str,
    body: &[u8],
) -> io::Result<Vec<u8>> {
    if body.len() > MESSAGE_LIMIT {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut writer = Writer { bytes: vec![b'l', METHOD_CALL, 0, 1] };
    writer.number(length(body.len()));
    writer.number(serial);
    writer.array(8, |writer| {
        let texts = [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
        ];
        for (code, kind, text) in texts {
            writer.align(8);
            writer.bytes.push(code);
            writer.signature(kind);
            writer.text(text);
        }
        if !signature.is_empty() {
            writer.align(8);
            writer.bytes.push(8);
            writer.signature("g");
            writer.signature(signature);
        }
    });
    writer.align(8);
    writer.bytes.extend(body);
    Ok(writer.bytes)
}

/// Everything encoded here is far below 4 GiB.
fn length(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
