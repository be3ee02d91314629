//! The stdio socket, `<bundle>/io.sock`.
//!
//! A client sends one JSON line, [`AttachRequest`]; the shim answers with one, [`AttachReply`]. From then on the
//! client's bytes are standard input (its half-close is end of input) and the shim's bytes are output: raw when
//! the process has a terminal, else frames of an 8-byte header ([`frame_header`]) and that many bytes. The shim
//! closes when the process has ended and all output is sent.
//!
//! Attaching is possible from Create (or Exec) on, so a client that attaches before Start misses nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Cause, Error, Result};

/// The socket's name in the bundle.
pub const SOCKET_NAME: &str = "io.sock";

/// Longest header line either side accepts, the newline included.
pub const HEADER_LENGTH_MAX: usize = 4096;

/// A client's first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Exec id; empty is the container's init.
    #[serde(default)]
    pub exec_id: String,
    /// Container id; needed only where one shim serves several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The client's bytes go to standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Send standard output (with a terminal, the one output).
    #[serde(default)]
    pub stdout: bool,
    /// Send standard error.
    #[serde(default)]
    pub stderr: bool,
    /// When this client's buffer is full, hold the process's output instead of dropping the client (until it has
    /// read nothing for half a minute). Exec processes always behave so: nobody else keeps their output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossless: bool,
}

/// The shim's first line: `{"tty":…}` or `{"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttachReply {
    /// Attached.
    Attached {
        /// Output is raw, since the process has a terminal.
        tty: bool,
    },
    /// Not attached; the connection closes.
    Refused {
        /// Why.
        error: String,
    },
}

/// Which stream a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// A message of the shim itself (Docker's `systemerr`), sent before it drops a client.
    System = 3,
}

impl Stream {
    /// `stdout`, `stderr` or `system`: the name in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}

/// The 8 bytes before `length` bytes of a stream: `[stream, 0, 0, 0, length, big endian]`.
pub fn frame_header(stream: Stream, length: u32) -> [u8; 8] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// Parses a header line, with or without its newline.
///
/// # Errors
/// `InvalidInput` when it is not the JSON of a `T`.
pub fn parse_header<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|source| Cause::AttachHeader { source }.into())
}

/// Attaches to the process behind `socket`, blocking until the shim agrees; returns the stream and whether output
/// is raw.
///
/// # Errors
/// `NotFound` when nobody listens, `Conflict` with the shim's words when it refuses.
pub fn attach(socket: &Path, request: &AttachRequest) -> Result<(UnixStream, bool)> {
    let mut stream = UnixStream::connect(socket)
        .map_err(|source| Error::from(Cause::Connect { path: socket.to_owned(), source }))?;
    let mut line = serde_json::to_vec(request)
        .map_err(|source| Error::from(Cause::AttachHeader { source }))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|source| Error::from(Cause::AttachExchange { source }))?;
    match parse_header(&read_line(&mut stream)?)? {
        AttachReply::Attached { tty } => Ok((stream, tty)),
        AttachReply::Refused { error } => Err(Cause::AttachRefused { message: error }.into()),
    }
}

/// Reads up to a newline, a byte at a time so that no output byte is taken with it.
fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .map_err(|source| Error::from(Cause::AttachExchange { source }))?;
        if byte == *b"\n" {
            return Ok(line);
        }
        if line.len() >= HEADER_LENGTH_MAX {
            return Err(Cause::AttachHeaderTooLong { limit: HEADER_LENGTH_MAX }.into());
        }
        line.extend(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_documented_form() {
        let request: AttachRequest =
            parse_header(br#"{"exec_id":"","stdin":true,"stdout":true,"stderr":true}"#).unwrap();
        assert!(request.stdin && request.stdout && request.stderr && request.exec_id.is_empty());
        let reply = serde_json::to_string(&AttachReply::Attached { tty: false }).unwrap();
        assert_eq!(reply, r#"{"tty":false}"#);
        let refused: AttachReply = parse_header(br#"{"error":"no such exec"}"#).unwrap();
        assert_eq!(refused, AttachReply::Refused { error: "no such exec".into() });
        assert_eq!(frame_header(Stream::Stderr, 258), [2, 0, 0, 0, 0, 0, 1, 2]);
    }
}
