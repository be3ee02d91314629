//! The last lines of a container whose shim did not live to tell them: from the log that it wrote.

use std::path::Path;

use brig_shim_protocol::{LastLine, Timestamp};

use super::BATCH_BYTES;
use super::reader::{Entry, Reader};
use crate::error::Result;

/// As many as a shim keeps.
const LINES_MAX: usize = 10;
/// Bytes kept of one line: its end.
const LINE_BYTES_MAX: usize = 1 << 10;
/// Pieces of output looked at: a line may be in several.
const ENTRIES_MAX: usize = 64;

/// The last lines of the log `path` that were written later than `after`, the oldest first.
pub(super) fn read(path: &Path, after: Option<Timestamp>) -> Result<Vec<LastLine>> {
    let mut reader = Reader::open(path, Some(ENTRIES_MAX))?;
    let mut entries = Vec::new();
    loop {
        let batch = reader.read(BATCH_BYTES)?;
        if batch.is_empty() {
            break;
        }
        entries.extend(batch);
        entries.drain(..entries.len().saturating_sub(ENTRIES_MAX));
    }
    let after = after.map(|at| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos));
    entries.retain(|entry| after.is_none_or(|after| entry.time_ns > after));
    Ok(lines(entries))
}

/// Joins pieces of one line, which end without a newline.
fn lines(entries: Vec<Entry>) -> Vec<LastLine> {
    let mut lines = Vec::new();
    let mut partial = [String::new(), String::new()];
    for entry in entries {
        let text = &mut partial[usize::from(entry.stderr)];
        text.push_str(&entry.log);
        if text.ends_with('\n') {
            lines.push(line(entry.stderr, &std::mem::take(text)));
        }
    }
    for (stderr, text) in [false, true].into_iter().zip(&partial) {
        if !text.is_empty() {
            lines.push(line(stderr, text));
        }
    }
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    lines
}

fn line(stderr: bool, text: &str) -> LastLine {
    let text = text.trim_end_matches('\n');
    let mut start = text.len().saturating_sub(LINE_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let stream = if stderr { "stderr" } else { "stdout" };
    LastLine { stream: stream.into(), text: text[start..].to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_of_this_run_are_found_in_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut text = String::new();
        let mut add = |second: u32, stream: &str, log: &str| {
            let log = serde_json::to_string(log).expect("JSON");
            let time = format!("2026-01-01T00:00:{second:02}.000000000Z");
            writeln!(text, r#"{{"log":{log},"stream":"{stream}","time":"{time}"}}"#).expect("text");
        };
        add(1, "stderr", "a former run\n");
        for number in 0..12 {
            add(2, "stdout", &format!("line {number}\n"));
        }
        add(3, "stdout", &"x".repeat(16 << 10));
        add(3, "stderr", "bad\n");
        add(3, "stdout", "end\n");
        add(3, "stdout", "unfinished");
        std::fs::write(&path, text).expect("write the log");
        let before = Timestamp::parse("2026-01-01T00:00:01Z").expect("a time");
        let found = read(&path, Some(before)).expect("read");
        assert_eq!(found.len(), LINES_MAX);
        assert_eq!((&*found[7].text, &*found[7].stream), ("bad", "stderr"));
        assert!(found[8].text.ends_with("xend") && found[8].text.len() == LINE_BYTES_MAX);
        assert_eq!(found[9].text, "unfinished");
        let late = Timestamp::parse("2026-01-01T00:00:04Z").expect("a time");
        assert!(read(&path, Some(late)).expect("read").is_empty());
        assert!(read(&directory.path().join("none"), None).expect("read").is_empty());
    }
}
