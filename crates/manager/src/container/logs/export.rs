//! The journal's export format: entries as lines and length-prefixed values, whatever bytes they hold.
//!
//! ```text
//! NAME=value\n                          a value that is text
//! NAME\n  8 bytes, little-endian  value\n   any other
//! \n                                    the end of an entry
//! ```
//!
//! Anybody on the machine may write to a journal, so nothing is taken for granted: a value is kept up to
//! [`VALUE_BYTES_MAX`] bytes and skipped from there on, a field is known by its name or passed over, and an entry without
//! a message is none.

use brig_shim_protocol::Timestamp;

use super::reader::Entry;

/// What is kept of one value. Our own messages are pieces of at most 16 KiB.
const VALUE_BYTES_MAX: usize = 256 << 10;
/// What is kept of a line that is no known field.
const NAME_BYTES_MAX: usize = 128;
/// Docker's driver, and ours, give errors this priority.
const PRIORITY_ERROR: &[u8] = b"3";

/// The fields that an entry is made of; others need not be sent. The journal adds its own, of which the cursor and the
/// time are used.
pub(super) const FIELDS: &str = "MESSAGE,PRIORITY,SYSLOG_TIMESTAMP,CONTAINER_PARTIAL_MESSAGE";

/// Turns bytes into entries as they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    state: State,
    /// The line, length or value that is being read, up to its limit.
    bytes: Vec<u8>,
    fields: Fields,
    /// Where the journal stood after the last entry.
    cursor: Option<String>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Line,
    /// The eight bytes of a length.
    Length { name: Vec<u8> },
    /// The value and the newline after it.
    Value { name: Vec<u8>, left: u64 },
}

#[derive(Debug, Default)]
struct Fields {
    message: Option<Vec<u8>>,
    error: bool,
    partial: bool,
    written_at: Option<Timestamp>,
    received_at: Option<Timestamp>,
    cursor: Option<String>,
}

impl Parser {
    /// Where the journal stood after the last whole entry.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Takes what was read, and adds the entries that it completes.
    pub(super) fn push(&mut self, mut input: &[u8], entries: &mut Vec<Entry>) {
        while !input.is_empty() {
            let taken = match &mut self.state {
                State::Line => self.line(input, entries),
                State::Length { .. } => self.length(input),
                State::Value { .. } => self.value(input),
            };
            input = &input[taken..];
        }
    }

    fn line(&mut self, input: &[u8], entries: &mut Vec<Entry>) -> usize {
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = &input[..end.unwrap_or(input.len())];
        // A value may be long; what has no `=` by then is no name.
        self.keep(piece, NAME_BYTES_MAX + VALUE_BYTES_MAX);
        let Some(end) = end else { return input.len() };
        let line = std::mem::take(&mut self.bytes);
        match line.iter().position(|byte| *byte == b'=') {
            Some(at) => self.field(&line[..at], &line[at + 1..]),
            None if line.is_empty() => {
                let mut fields = std::mem::take(&mut self.fields);
                self.cursor = fields.cursor.take().or_else(|| self.cursor.take());
                entries.extend(fields.entry());
            }
            None => self.state = State::Length { name: line },
        }
        end + 1
    }

    fn length(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(8 - self.bytes.len());
        self.bytes.extend_from_slice(&input[..taken]);
        if let Ok(length) = <[u8; 8]>::try_from(&*self.bytes) {
            self.bytes.clear();
            if let State::Length { name } = std::mem::take(&mut self.state) {
                let left = u64::from_le_bytes(length).saturating_add(1);
                self.state = State::Value { name, left };
            }
        }
        taken
    }

    fn value(&mut self, input: &[u8]) -> usize {
        let State::Value { left, .. } = &mut self.state else { return 0 };
        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
        *left -= taken as u64;
        let is_whole = *left == 0;
        // The last byte is the newline behind the value.
        let piece = &input[..taken - usize::from(is_whole)];
        self.keep(piece, VALUE_BYTES_MAX);
        if is_whole && let State::Value { name, .. } = std::mem::take(&mut self.state) {
            let value = std::mem::take(&mut self.bytes);
            self.field(&name, &value);
        }
        taken
    }

    fn keep(&mut self, piece: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The first value of a name counts.
    fn field(&mut self, name: &[u8], value: &[u8]) {
        let fields = &mut self.fields;
        let text = || std::str::from_utf8(value).ok();
        match name {
            b"MESSAGE" if fields.message.is_none() => {
                fields.message = Some(value[..value.len().min(VALUE_BYTES_MAX)].to_owned());
            }
            b"PRIORITY" => fields.error = value == PRIORITY_ERROR,
            b"CONTAINER_PARTIAL_MESSAGE" => fields.partial = value == b"true",
            b"SYSLOG_TIMESTAMP" if fields.written_at.is_none() => {
                fields.written_at = text().and_then(|text| Timestamp::parse(text).ok());
            }
            b"__REALTIME_TIMESTAMP" if fields.received_at.is_none() => {
                let microseconds = text().and_then(|text| text.parse::<u64>().ok());
                fields.received_at = microseconds.map(|microseconds| {
                    let time = std::time::Duration::from_micros(microseconds);
                    std::time::UNIX_EPOCH.checked_add(time).unwrap_or(std::time::UNIX_EPOCH).into()
                });
            }
            b"__CURSOR" => fields.cursor = text().map(str::to_owned),
            _ => {}
        }
    }
}

impl Fields {
    fn entry(self) -> Option<Entry> {
        let at = self.written_at.or(self.received_at)?;
        let mut log = String::from_utf8_lossy(&self.message?).into_owned();
        if !self.partial {
            log.push('\n');
        }
        let time_ns = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
        Some(Entry { log, stderr: self.error, time: at.to_string(), time_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1500000\n_BOOT_ID=0\n";

    fn parsed(input: &[u8], step: usize) -> (Vec<Entry>, Parser) {
        let (mut parser, mut entries) = (Parser::default(), Vec::new());
        for piece in input.chunks(step) {
            parser.push(piece, &mut entries);
        }
        (entries, parser)
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        let mut field = format!("{name}\n").into_bytes();
        field.extend_from_slice(&(value.len() as u64).to_le_bytes());
        field.extend_from_slice(value);
        field.push(b'\n');
        field
    }

    #[test]
    fn entries_come_out_the_same_however_the_bytes_come_in() {
        let mut input = Vec::new();
        input.extend_from_slice(HEAD.as_bytes());
        input.extend_from_slice(
            b"MESSAGE=out=1\nPRIORITY=6\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05.000000006Z\n\n",
        );
        input.extend_from_slice(HEAD.as_bytes());
        input.extend_from_slice(&binary("MESSAGE", b"a\n\nb=\xff\x00"));
        input.extend_from_slice(b"PRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\n\n");
        for step in [1, 2, 7, input.len()] {
            let (entries, parser) = parsed(&input, step);
            assert_eq!(entries.len(), 2, "{step}");
            assert_eq!((&*entries[0].log, entries[0].stderr), ("out=1\n", false));
            assert_eq!(entries[0].time, "2026-01-02T03:04:05.000000006Z");
            assert_eq!((&*entries[1].log, entries[1].stderr), ("a\n\nb=\u{fffd}\u{0}", true));
            assert_eq!(entries[1].time_ns, 1_500_000_000);
            assert_eq!(parser.cursor(), Some("s=1;i=2"));
        }
    }

    #[test]
    fn what_no_driver_wrote_does_no_harm() {
        let long = vec![b'x'; 3 * VALUE_BYTES_MAX];
        let mut input = Vec::new();
        // No message, no time, several messages, an endless name, values beyond the limit, a length of nothing.
        input.extend_from_slice(format!("{HEAD}PRIORITY=6\n\nMESSAGE=no time\n\n").as_bytes());
        input.extend_from_slice(format!("{HEAD}MESSAGE=first\nMESSAGE=second\n\n").as_bytes());
        input.extend_from_slice(HEAD.as_bytes());
        input.extend_from_slice(&binary("MESSAGE", &long));
        input.extend_from_slice(&binary("OTHER", &long));
        input.extend_from_slice(&binary("EMPTY", b""));
        input.extend_from_slice(b"\n");
        input.extend_from_slice(HEAD.as_bytes());
        input.extend_from_slice(b"MESSAGE=");
        input.extend_from_slice(&long);
        input.extend_from_slice(b"\nSYSLOG_TIMESTAMP=soon\n__REALTIME_TIMESTAMP=never\n\n");
        input.extend_from_slice(format!("{HEAD}MESSAGE=last\n\n").as_bytes());
        let (entries, parser) = parsed(&input, 4096);
        let lengths: Vec<usize> = entries.iter().map(|entry| entry.log.len()).collect();
        assert_eq!(lengths, [6, VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX + 1, 5]);
        assert_eq!(entries[0].log, "first\n");
        assert!(parser.bytes.capacity() <= 2 * VALUE_BYTES_MAX);
        // A length that no value has: nothing more comes, and nothing is kept of it beyond the limit.
        let mut endless = format!("{HEAD}MESSAGE\n").into_bytes();
        endless.extend_from_slice(&u64::MAX.to_le_bytes());
        endless.extend_from_slice(&long);
        // The place after an entry is known once that is whole.
        let (entries, parser) = parsed(&endless, 4096);
        assert_eq!(parser.cursor(), None);
        assert!(entries.is_empty() && parser.bytes.len() == VALUE_BYTES_MAX);
    }
}
