//! journald's native protocol: one datagram an entry, with the fields that Docker's driver of that name gives.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use brig_shim_protocol::Timestamp;
use brig_shim_protocol::attach::Stream;

use super::lines::Lines;

/// Where journald listens (systemd-journald.service(8)).
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

const PRIORITY_ERROR: u8 = 3;
const PRIORITY_INFORMATION: u8 = 6;

/// A connection to the journal, and the unfinished lines.
#[derive(Debug)]
pub(crate) struct Journal {
    path: std::path::PathBuf,
    socket: UnixDatagram,
    /// Fields of every entry, encoded.
    fields: Vec<u8>,
    streams: [Partial; 2],
    /// Lines that journald did not take, since the last that it did.
    dropped: u64,
}

#[derive(Debug, Default)]
struct Partial {
    lines: Lines,
    /// Pieces of the present line so far.
    pieces: u32,
    /// Tells the lines in pieces apart.
    number: u64,
}

impl Journal {
    /// Connects; `fields` are `NAME=value`.
    pub(super) fn open(path: &Path, fields: &[String]) -> io::Result<Self> {
        let mut encoded = Vec::new();
        for (name, value) in fields.iter().filter_map(|field| field.split_once('=')) {
            field(&mut encoded, name, value.as_bytes());
        }
        let socket = connect(path)?;
        let streams = <[Partial; 2]>::default();
        Ok(Self { path: path.to_owned(), socket, fields: encoded, streams, dropped: 0 })
    }

    /// Sends what is whole; waits while the journal is behind.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        let index = super::index(stream);
        let mut partial = std::mem::take(&mut self.streams[index]);
        let Partial { lines, pieces, number } = &mut partial;
        lines.push(bytes, |piece| self.piece(stream, piece, (&mut *pieces, &mut *number), time));
        self.streams[index] = partial;
    }

    /// Sends the unfinished line.
    pub(super) fn finish(&mut self, stream: Stream, time: Timestamp) {
        let index = super::index(stream);
        let mut partial = std::mem::take(&mut self.streams[index]);
        let Partial { lines, pieces, number } = &mut partial;
        lines.finish(|piece| self.piece(stream, piece, (pieces, number), time));
        self.streams[index] = partial;
    }

    fn piece(
        &mut self,
        stream: Stream,
        piece: &[u8],
        (pieces, number): (&mut u32, &mut u64),
        time: Timestamp,
    ) {
        let (text, last) = match piece.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (piece, false),
        };
        let mut entry = self.fields.clone();
        let error = stream == Stream::Stderr;
        let priority = if error { PRIORITY_ERROR } else { PRIORITY_INFORMATION };
        field(&mut entry, "PRIORITY", priority.to_string().as_bytes());
        field(&mut entry, "SYSLOG_TIMESTAMP", time.to_string().as_bytes());
        if *pieces > 0 || !last {
            *pieces += 1;
            let id = format!("{}-{}-{number}", std::process::id(), stream.name());
            field(&mut entry, "CONTAINER_PARTIAL_ID", id.as_bytes());
            field(&mut entry, "CONTAINER_PARTIAL_ORDINAL", pieces.to_string().as_bytes());
            field(&mut entry, "CONTAINER_PARTIAL_LAST", last.to_string().as_bytes());
            if !last {
                field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
        }
        if last {
            *pieces = 0;
            *number += 1;
        }
        field(&mut entry, "MESSAGE", text);
        self.send(&entry);
    }

    fn send(&mut self, entry: &[u8]) {
        if self.dropped > 0 {
            let mut note = self.fields.clone();
            field(&mut note, "PRIORITY", PRIORITY_ERROR.to_string().as_bytes());
            let message =
                format!("brig: {} log lines are missing: journald was away", self.dropped);
            field(&mut note, "MESSAGE", message.as_bytes());
            if self.try_send(&note).is_ok() {
                self.dropped = 0;
            }
        }
        if self.try_send(entry).is_err() {
            self.dropped += 1;
        }
    }

    fn try_send(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.socket.send(entry).is_ok() {
            return Ok(());
        }
        // journald was started anew: its former socket refuses.
        self.socket = connect(&self.path)?;
        self.socket.send(entry).map(drop)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// A field: `NAME=value` and a newline, or, for a value that holds newlines, its length in between.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(recorder: &UnixDatagram) -> String {
        let mut buffer = vec![0; 64 << 10];
        let count = recorder.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn entries_carry_the_fields_and_tell_of_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let recorder = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path, &["CONTAINER_NAME=web".into()]).unwrap();
        let now = Timestamp::now();
        journal.write(Stream::Stdout, b"one\ntw", now);
        let entry = received(&recorder);
        for expected in ["CONTAINER_NAME=web\n", "PRIORITY=6\n", "MESSAGE=one\n"] {
            assert!(entry.contains(expected), "{entry}");
        }
        assert!(!entry.contains("PARTIAL"), "{entry}");
        journal.write(Stream::Stderr, b"bad\n", now);
        assert!(received(&recorder).contains("PRIORITY=3\n"));
        journal.write(Stream::Stdout, b"o\n", now);
        assert!(received(&recorder).contains("MESSAGE=two\n"));
        journal.write(Stream::Stdout, &[b'x'; 20_000], now);
        journal.write(Stream::Stdout, b"end\n", now);
        let (first, second) = (received(&recorder), received(&recorder));
        assert!(first.contains("CONTAINER_PARTIAL_MESSAGE=true\n"));
        assert!(first.contains("CONTAINER_PARTIAL_ORDINAL=1\n"));
        assert!(second.contains("CONTAINER_PARTIAL_ORDINAL=2\n"));
        assert!(second.contains("CONTAINER_PARTIAL_LAST=true\n") && second.contains("xend\n"));
        assert!(!second.contains("PARTIAL_MESSAGE"));
    }

    #[test]
    fn a_journal_that_comes_back_is_told_what_it_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let recorder = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path, &[]).unwrap();
        drop(recorder);
        std::fs::remove_file(&path).unwrap();
        journal.write(Stream::Stdout, b"lost\n", Timestamp::now());
        let recorder = UnixDatagram::bind(&path).unwrap();
        journal.write(Stream::Stdout, b"kept\n", Timestamp::now());
        assert!(received(&recorder).contains("1 log lines are missing"));
        assert!(received(&recorder).contains("MESSAGE=kept\n"));
    }

    #[test]
    fn a_value_with_newlines_is_told_by_its_length() {
        let mut entry = Vec::new();
        field(&mut entry, "A", b"x\ny");
        assert_eq!(entry, b"A\n\x03\0\0\0\0\0\0\0x\ny\n");
    }
}
