//! The smallest client of the Engine API: one request, one connection, everything visible.
//!
//! The robustness tests need to know whether an answer came whole, which clients with retries and pools hide.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest silence of the daemon.
const PATIENCE: Duration = Duration::from_secs(120);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether the daemon did what it was asked, or found it done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status < 400
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Sends a request; `body` is JSON, or empty.
///
/// # Errors
/// The connection failed, or ended before the answer did.
pub fn call(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut reader = open(socket, method, path, body)?;
    let (status, chunked, length) = read_head(&mut reader)?;
    let bytes = match (chunked, length) {
        (true, _) => read_chunks(&mut reader)?,
        (false, Some(length)) => {
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes)?;
            bytes
        }
        (false, None) => Vec::new(),
    };
    Ok(Answer { status, body: String::from_utf8_lossy(&bytes).into_owned() })
}

/// Sends a request and leaves its answer unread.
///
/// # Errors
/// The connection failed.
pub fn open(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<BufReader<UnixStream>> {
    send(socket, method, path, body, "Connection: close")
}

/// Sends a request that takes the connection over (attach, exec) and hands out what follows the answer's head.
///
/// # Errors
/// The connection failed, or the daemon did not hand it over.
pub fn hijack(socket: &Path, path: &str, body: &str) -> io::Result<BufReader<UnixStream>> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp";
    let mut reader = send(socket, "POST", path, body, upgrade)?;
    match read_head(&mut reader)? {
        (101, ..) => Ok(reader),
        (status, ..) => Err(io::Error::other(format!("POST {path}: status {status}"))),
    }
}

fn send(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    connection: &str,
) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: brig\r\n{connection}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(BufReader::new(stream))
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, bool, Option<usize>)> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned());
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| broken("no status line"))?;
    let (mut chunked, mut length) = (false, None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(broken("the headers have no end"));
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Ok((status, chunked, length));
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        chunked |= header == "transfer-encoding: chunked";
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body has no end"));
        }
        let size = usize::from_str_radix(line.trim(), 16)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let start = bytes.len();
        bytes.resize(start + size, 0);
        reader.read_exact(&mut bytes[start..])?;
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        if size == 0 {
            return Ok(bytes);
        }
    }
}
