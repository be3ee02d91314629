//! The log files of one container as one sequence of entries.
//!
//! ```text
//! oldest  x.3.gz  x.2.gz  x.1  x  newest, still growing
//! ```
//!
//! All files are opened at once, so that a rotation meanwhile takes nothing away. A rotation later on is noticed by the
//! inode of the growing file: its rest is read, then the files that came after it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use brig_shim_protocol::Timestamp;
use flate2::bufread::GzDecoder;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Rotated files looked for.
const FILES_MAX: u32 = 1000;
/// A line is at most this long: 16 KiB of output, each byte six characters, and what is around it.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Read backwards in pieces of this size to find the last lines.
const BLOCK_BYTES: u64 = 64 << 10;

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) log: String,
    pub(super) stderr: bool,
    /// As written.
    pub(super) time: String,
    pub(super) time_ns: i128,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
}

/// Reads the entries in order, and on when there are more.
pub(super) struct Reader {
    path: PathBuf,
    /// Oldest first; the last is the growing one.
    sources: VecDeque<Source>,
    /// The start of a line whose end has not been written yet.
    partial: Vec<u8>,
    inode: Option<u64>,
}

enum Source {
    Plain(BufReader<File>),
    Gzip(Box<BufReader<GzDecoder<BufReader<File>>>>),
}

impl Reader {
    /// Opens the log whose current file is `path`, at its beginning or at its last `tail` lines.
    pub(super) fn open(path: &Path, tail: Option<usize>) -> Result<Self> {
        let mut files = Vec::new();
        if let Some(file) = open(path)? {
            files.push((file, false));
        }
        for number in 1..FILES_MAX {
            let name = |end: &str| PathBuf::from(format!("{}.{number}{end}", path.display()));
            match (open(&name(""))?, open(&name(".gz"))?) {
                (Some(file), _) => files.push((file, false)),
                (None, Some(file)) => files.push((file, true)),
                (None, None) => break,
            }
        }
        let inode = match files.first() {
            Some((file, _)) => Some(inode(file, path)?),
            None => None,
        };
        let mut reader =
            Self { path: path.to_owned(), sources: VecDeque::new(), partial: Vec::new(), inode };
        match tail {
            None => {
                for (file, gzip) in files {
                    reader.sources.push_front(source(file, gzip));
                }
            }
            Some(lines) => reader.open_tail(files, lines)?,
        }
        Ok(reader)
    }

    /// Goes back from the newest file until enough lines are found.
    fn open_tail(&mut self, files: Vec<(File, bool)>, mut lines: usize) -> Result<()> {
        let failed = |source| Error::io("look for the last lines of the log", source);
        for (index, (mut file, gzip)) in files.into_iter().enumerate() {
            // The growing file is read on even when no old line of it is wanted.
            if lines == 0 && index > 0 {
                break;
            }
            if gzip {
                let mut count = 0_usize;
                let mut counting = source(file.try_clone().map_err(failed)?, true);
                count_lines(&mut counting, &mut count).map_err(failed)?;
                file.seek(SeekFrom::Start(0)).map_err(failed)?;
                let mut opened = source(file, true);
                skip_lines(&mut opened, count.saturating_sub(lines)).map_err(failed)?;
                lines = lines.saturating_sub(count);
                self.sources.push_front(opened);
            } else {
                let found = seek_last_lines(&mut file, lines).map_err(failed)?;
                lines -= found;
                self.sources.push_front(source(file, false));
            }
        }
        Ok(())
    }

    /// The next entries, as many as fit into about `bytes_max`; none when there are no more at present.
    pub(super) fn read(&mut self, bytes_max: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(source) = self.sources.front_mut() else {
                if self.open_later()? { continue } else { break }
            };
            let failed = |error| Error::io("read the log", error);
            let length = source.read_line(&mut self.partial).map_err(failed)?;
            bytes += length;
            if self.partial.last() == Some(&b'\n') {
                entries.extend(parse(&self.partial));
                self.partial.clear();
            } else if self.partial.len() >= LINE_BYTES_MAX {
                self.partial.clear();
            } else if length == 0 {
                if self.sources.len() > 1 {
                    // A line cut short by a crash ends with its file.
                    self.partial.clear();
                    self.sources.pop_front();
                } else if !self.open_later()? {
                    break;
                }
            }
        }
        Ok(entries)
    }

    /// Queues the files that a rotation put after the one at hand. True when there are any.
    fn open_later(&mut self) -> Result<bool> {
        let Some(current) = open(&self.path)? else { return Ok(false) };
        let now = inode(&current, &self.path)?;
        if self.inode == Some(now) && !self.sources.is_empty() {
            return Ok(false);
        }
        let mut later = vec![source(current, false)];
        if let Some(before) = self.inode {
            for number in 1..FILES_MAX {
                let Some(file) = open(&PathBuf::from(format!("{}.{number}", self.path.display())))?
                else {
                    break;
                };
                if inode(&file, &self.path)? == before {
                    break;
                }
                later.push(source(file, false));
            }
        }
        // What is left of the old file was read to its end just now; it is dropped by the caller's next turn.
        self.sources.extend(later.into_iter().rev());
        self.inode = Some(now);
        Ok(true)
    }
}

impl Source {
    /// Appends up to and including a newline; 0 at the end.
    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<usize> {
        let room = (LINE_BYTES_MAX as u64).saturating_sub(line.len() as u64).max(1);
        match self {
            Self::Plain(reader) => reader.take(room).read_until(b'\n', line),
            Self::Gzip(reader) => reader.take(room).read_until(b'\n', line),
        }
    }
}

fn source(file: File, gzip: bool) -> Source {
    if gzip {
        Source::Gzip(Box::new(BufReader::new(GzDecoder::new(BufReader::new(file)))))
    } else {
        Source::Plain(BufReader::with_capacity(64 << 10, file))
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("open log {}", path.display()), error)),
    }
}

fn inode(file: &File, path: &Path) -> Result<u64> {
    let metadata = file
        .metadata()
        .map_err(|source| Error::io(format!("look at log {}", path.display()), source))?;
    Ok(metadata.ino())
}

/// An entry; `None` for a line that a crash left half written.
fn parse(line: &[u8]) -> Option<Entry> {
    let Line { log, stream, time } = serde_json::from_slice(line).ok()?;
    let at = Timestamp::parse(&time).ok()?;
    let time_ns = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    Some(Entry { log, stderr: stream == "stderr", time, time_ns })
}

fn count_lines(source: &mut Source, count: &mut usize) -> std::io::Result<()> {
    let mut line = Vec::new();
    while source.read_line(&mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            *count += 1;
        }
        line.clear();
    }
    Ok(())
}

fn skip_lines(source: &mut Source, mut count: usize) -> std::io::Result<()> {
    let mut line = Vec::new();
    while count > 0 && source.read_line(&mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            count -= 1;
        }
        line.clear();
    }
    Ok(())
}

/// Sets the position to the last `lines` whole lines; returns how many there are from there on.
fn seek_last_lines(file: &mut File, lines: usize) -> std::io::Result<usize> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0_u8; usize::try_from(BLOCK_BYTES).unwrap_or(1 << 16)];
    let mut at = end;
    let mut newlines = 0;
    let mut start_of_last = end;
    if lines == 0 {
        return Ok(0);
    }
    while at > 0 {
        let length = at.min(BLOCK_BYTES);
        at -= length;
        file.seek(SeekFrom::Start(at))?;
        let piece = &mut block[..usize::try_from(length).unwrap_or(0)];
        file.read_exact(piece)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = at + index as u64 + 1;
            // The newline before the first wanted line.
            if newlines == lines {
                file.seek(SeekFrom::Start(after))?;
                return Ok(lines);
            }
            newlines += 1;
            start_of_last = after;
        }
    }
    let _ = start_of_last;
    file.seek(SeekFrom::Start(0))?;
    Ok(newlines)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Write as _;

    use super::*;

    struct Log {
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a directory") }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("x-json.log")
        }

        fn lines(range: std::ops::Range<u32>) -> String {
            range.fold(String::new(), |mut text, number| {
                let stream = if number.is_multiple_of(2) { "stdout" } else { "stderr" };
                let time = format!("2026-01-01T00:00:00.{number:09}Z");
                let _ = writeln!(
                    text,
                    r#"{{"log":"line {number}\n","stream":"{stream}","time":"{time}"}}"#
                );
                text
            })
        }

        fn append(&self, text: &str) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path());
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("append");
        }

        fn rotate(&self, files: u32) {
            let name = |number: u32| PathBuf::from(format!("{}.{number}", self.path().display()));
            for number in (1..files).rev() {
                let _ = std::fs::rename(name(number), name(number + 1));
            }
            std::fs::rename(self.path(), name(1)).expect("rotate");
        }
    }

    fn numbers(entries: &[Entry]) -> Vec<u32> {
        entries
            .iter()
            .map(|entry| entry.log.trim().trim_start_matches("line ").parse().expect("a number"))
            .collect()
    }

    fn all(reader: &mut Reader) -> Vec<u32> {
        let mut found = Vec::new();
        loop {
            let entries = reader.read(100).expect("read");
            if entries.is_empty() {
                return found;
            }
            found.extend(numbers(&entries));
        }
    }

    #[test]
    fn rotated_and_compressed_files_are_read_oldest_first() {
        let log = Log::new();
        let gzip = File::create(format!("{}.2.gz", log.path().display())).expect("create");
        let mut encoder = flate2::write::GzEncoder::new(gzip, flate2::Compression::fast());
        encoder.write_all(Log::lines(0..5).as_bytes()).expect("compress");
        encoder.finish().expect("finish");
        std::fs::write(format!("{}.1", log.path().display()), Log::lines(5..9)).expect("write");
        log.append(&Log::lines(9..12));
        assert_eq!(
            all(&mut Reader::open(&log.path(), None).expect("open")),
            (0..12).collect::<Vec<_>>()
        );
        for tail in 0..14 {
            let found = all(&mut Reader::open(&log.path(), Some(tail)).expect("open"));
            let first = 12_u32.saturating_sub(u32::try_from(tail).expect("small"));
            assert_eq!(found, (first..12).collect::<Vec<_>>(), "tail {tail}");
        }
    }

    #[test]
    fn growth_and_rotation_lose_and_double_nothing() {
        let log = Log::new();
        log.append(&Log::lines(0..3));
        let mut reader = Reader::open(&log.path(), None).expect("open");
        assert_eq!(all(&mut reader), [0, 1, 2]);
        log.append(&Log::lines(3..4));
        log.rotate(5);
        log.append(&Log::lines(4..5));
        log.rotate(5);
        log.append(&Log::lines(5..6));
        assert_eq!(all(&mut reader), [3, 4, 5]);
        log.append(&Log::lines(6..7));
        assert_eq!(all(&mut reader), [6]);
    }

    #[test]
    fn a_line_is_not_shown_before_its_end_is_written() {
        let log = Log::new();
        let text = Log::lines(0..1);
        log.append(&text[..20]);
        let mut reader = Reader::open(&log.path(), None).expect("open");
        assert!(all(&mut reader).is_empty());
        log.append(&text[20..]);
        assert_eq!(all(&mut reader), [0]);
    }

    #[test]
    fn damaged_lines_are_left_out() {
        let log = Log::new();
        log.append("{\"log\":\"half\n");
        log.append(&Log::lines(1..2));
        assert_eq!(all(&mut Reader::open(&log.path(), None).expect("open")), [1]);
    }

    #[test]
    fn a_log_that_does_not_exist_yet_is_empty_and_may_appear() {
        let log = Log::new();
        let mut reader = Reader::open(&log.path(), Some(10)).expect("open");
        assert!(all(&mut reader).is_empty());
        log.append(&Log::lines(0..2));
        assert_eq!(all(&mut reader), [0, 1]);
    }

    #[test]
    fn the_last_lines_of_a_long_file_are_found_across_blocks() {
        let log = Log::new();
        log.append(&Log::lines(0..5000));
        let found = all(&mut Reader::open(&log.path(), Some(2000)).expect("open"));
        assert_eq!(found, (3000..5000).collect::<Vec<_>>());
    }
}
