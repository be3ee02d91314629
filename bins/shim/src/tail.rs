//! The last lines of a process's output, kept for the record of its end.
//!
//! Of each piece of output only the end is looked at, however long the piece is, and a process that writes nothing costs
//! nothing: this runs for all that every container writes.

use std::collections::VecDeque;

use brig_shim_protocol::LastLine;
use brig_shim_protocol::attach::Stream;

/// Lines kept.
const LINES_MAX: usize = 10;
/// Bytes kept, unfinished lines included.
const LENGTH_MAX: usize = 4 << 10;
/// Bytes kept of one line: its end, so that a long one does not push out all others.
const LINE_LENGTH_MAX: usize = 1 << 10;

/// The last lines of both streams in the order in which they were ended.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<(Stream, Vec<u8>)>,
    /// The unfinished lines of standard output and error.
    partial: [Vec<u8>; 2],
}

impl Tail {
    /// Takes output.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let window = &bytes[bytes.len().saturating_sub(LENGTH_MAX)..];
        let newlines = window.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        // One more than is kept: what comes before it ends a line that nobody will see.
        let start = newlines.map(|(at, _)| at + 1).nth(LINES_MAX).unwrap_or(0);
        let end = &window[start..];
        let partial = usize::from(stream != Stream::Stdout);
        if end.len() < bytes.len() {
            self.partial[partial].clear();
        }
        for piece in end.split_inclusive(|&byte| byte == b'\n') {
            let line = &mut self.partial[partial];
            line.extend_from_slice(piece);
            if line.len() > LINE_LENGTH_MAX {
                line.drain(..line.len() - LINE_LENGTH_MAX);
            }
            if piece.ends_with(b"\n") {
                line.pop();
                let line = std::mem::take(line);
                self.lines.push_back((stream, line));
                self.trim();
            }
        }
    }

    fn trim(&mut self) {
        let mut length: usize = self.lines.iter().map(|(_, line)| line.len()).sum();
        while self.lines.len() > LINES_MAX || length > LENGTH_MAX - 2 * LINE_LENGTH_MAX {
            let Some((_, line)) = self.lines.pop_front() else { break };
            length -= line.len();
        }
    }

    /// The lines, the oldest first, with those that were never ended.
    pub(crate) fn into_lines(mut self) -> Vec<LastLine> {
        for (stream, partial) in [Stream::Stdout, Stream::Stderr].into_iter().zip(self.partial) {
            if !partial.is_empty() {
                self.lines.push_back((stream, partial));
            }
        }
        let surplus = self.lines.len().saturating_sub(LINES_MAX);
        self.lines.iter().skip(surplus).map(|(stream, line)| LastLine::new(*stream, line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(tail: Tail) -> Vec<String> {
        let show = |line: LastLine| format!("{}:{}", line.stream, line.text);
        tail.into_lines().into_iter().map(show).collect()
    }

    #[test]
    fn the_last_lines_of_both_streams_are_kept_in_order() {
        let mut tail = Tail::default();
        tail.push(Stream::Stdout, b"one\ntw");
        tail.push(Stream::Stderr, b"oops\n");
        tail.push(Stream::Stdout, b"o\nend");
        assert_eq!(lines(tail), ["stdout:one", "stderr:oops", "stdout:two", "stdout:end"]);
        let mut tail = Tail::default();
        let all: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        tail.push(Stream::Stdout, b"begun ");
        tail.push(Stream::Stdout, all.as_bytes());
        let kept = lines(tail);
        assert_eq!((kept.len(), &*kept[0], &*kept[9]), (10, "stdout:line 990", "stdout:line 999"));
    }

    #[test]
    fn long_lines_leave_room_for_others_and_their_ends_are_kept() {
        let mut tail = Tail::default();
        tail.push(Stream::Stdout, b"short\n");
        for _ in 0..100 {
            tail.push(Stream::Stdout, &[b'x'; 3000]);
        }
        tail.push(Stream::Stdout, b"END\nlast");
        let kept = lines(tail);
        assert_eq!((kept.len(), &*kept[0], &*kept[2]), (3, "stdout:short", "stdout:last"));
        assert!(kept[1].ends_with("xEND") && kept[1].len() < LINE_LENGTH_MAX + 10);
        let mut tail = Tail::default();
        tail.push(Stream::Stderr, &b"0123456789abcdef0123456789abcdef\n".repeat(10_000));
        for _ in 0..9 {
            tail.push(Stream::Stderr, &[&[b'y'; 5000][..], b"\n"].concat());
        }
        let total: usize = tail.into_lines().iter().map(|line| line.text.len()).sum();
        assert!(total <= LENGTH_MAX, "{total}");
    }
}
