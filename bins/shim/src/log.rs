//! The log that the shim writes for brigd, so that a container never depends on brigd's presence.
//!
//! A line of output becomes one JSON object per line, as Docker's json-file driver writes it:
//! `{"log":"text\n","stream":"stdout","time":"2026-11-24T04:15:19.000000001Z"}`. The time is when the shim read it. A
//! line longer than [`lines::LENGTH_MAX`] is cut; all pieces but the last lack the newline, and so does the last line of a
//! process that ended without one. So the `log` values of one stream, joined, are exactly what was written (bytes
//! that are not UTF-8 become U+FFFD, which JSON cannot avoid).
//!
//! ```text
//! <path>            written to
//! <path>.1[.gz]     the one before, and so on to <path>.<max_files - 1>
//! <path>.gz.tmp     being compressed by a forked child
//! ```
//!
//! A full disk does not stop the container: what cannot be written is dropped whole lines at a time and counted, and
//! the next line that can be written is preceded by one that says how many are missing. Memory: one buffer of up to
//! [`BATCH`] bytes while writing, and the unfinished line of each stream.
//!
//! What may wait for others, journald and files that must not make a container wait, is written by a [`crate::logger`].

mod encode;
mod journal;
mod lines;
mod rotate;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use brig_shim_protocol::Timestamp;
use brig_shim_protocol::attach::Stream;
use brig_shim_protocol::options::LogOptions;

use journal::Journal;
use lines::Lines;
pub(crate) use rotate::{CompressJob, compress};

/// Encoded bytes gathered before they are written.
const BATCH: usize = 32 << 10;

/// A log in json-file format.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes in `file`, all of them whole lines.
    size: u64,
    max_size: u64,
    max_files: u32,
    compress: bool,
    /// Unfinished lines of standard output and error.
    lines: [Lines; 2],
    /// Encoded lines that are yet to be written.
    batch: Vec<u8>,
    batch_lines: u64,
    dropped: u64,
    rotated: rotate::Rotated,
}

/// A log of whatever kind.
#[derive(Debug)]
pub(crate) enum Sink {
    Files(Box<Log>),
    Journal(Box<Journal>),
}

impl Sink {
    /// Opens the log that `options` describe; `None` when they ask for no log.
    pub(crate) fn open(options: &LogOptions) -> Result<Option<Self>, String> {
        match &*options.driver {
            "" | "none" => Ok(None),
            "json-file" => Log::open(options).map(|log| Some(Self::Files(Box::new(log)))),
            "journald" => {
                let journal = Journal::open(journal::SOCKET.as_ref(), &options.journal_fields)
                    .map_err(|error| {
                        format!("connect to journald at {}: {error}", journal::SOCKET)
                    })?;
                Ok(Some(Self::Journal(Box::new(journal))))
            }
            other => Err(format!(
                "unknown log driver {other:?}; use json-file, journald, none or a binary:// program"
            )),
        }
    }

    /// Logs what was read from a stream at `time`.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        match self {
            Self::Files(log) => log.write(stream, bytes, time),
            Self::Journal(journal) => journal.write(stream, bytes, time),
        }
    }

    /// Logs the unfinished line of a stream that has ended.
    pub(crate) fn finish(&mut self, stream: Stream, time: Timestamp) {
        match self {
            Self::Files(log) => log.finish(stream, time),
            Self::Journal(journal) => journal.finish(stream, time),
        }
    }

    /// The next rotated file to compress.
    pub(crate) fn compress_job(&mut self) -> Option<CompressJob> {
        match self {
            Self::Files(log) => log.compress_job(),
            Self::Journal(_) => None,
        }
    }

    /// Takes note that the compression begun last has ended.
    pub(crate) fn compressed(&mut self, succeeded: bool) {
        if let Self::Files(log) = self {
            log.compressed(succeeded);
        }
    }
}

impl Log {
    /// Opens the log that `options` describe.
    pub(crate) fn open(options: &LogOptions) -> Result<Self, String> {
        let path = PathBuf::from(&options.path);
        if !path.is_absolute() {
            return Err(format!("log path {:?} is not absolute", options.path));
        }
        let file =
            open_log(&path).map_err(|error| format!("open log {}: {error}", path.display()))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self {
            path,
            file,
            size,
            max_size: options.max_size_bytes,
            max_files: options.max_files.max(1),
            compress: options.compress,
            lines: <[Lines; 2]>::default(),
            batch: Vec::new(),
            batch_lines: 0,
            dropped: 0,
            rotated: rotate::Rotated::default(),
        })
    }

    /// Logs what was read from a stream at `time`.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        let stamp = time.to_string();
        let mut lines = std::mem::take(&mut self.lines[index(stream)]);
        lines.push(bytes, |piece| self.entry(stream, piece, &stamp));
        self.lines[index(stream)] = lines;
        self.flush();
    }

    /// Logs the unfinished line of a stream that has ended.
    pub(crate) fn finish(&mut self, stream: Stream, time: Timestamp) {
        let mut lines = std::mem::take(&mut self.lines[index(stream)]);
        lines.finish(|piece| self.entry(stream, piece, &time.to_string()));
        self.flush();
    }

    fn entry(&mut self, stream: Stream, line: &[u8], stamp: &str) {
        if self.dropped > 0 && self.batch.is_empty() {
            let note = format!("brig: {} log lines are missing: the disk was full\n", self.dropped);
            encode::entry(&mut self.batch, note.as_bytes(), Stream::Stderr.name(), stamp);
        }
        let start = self.batch.len();
        encode::entry(&mut self.batch, line, stream.name(), stamp);
        self.batch_lines += 1;
        let end = self.size + self.batch.len() as u64;
        if self.max_size > 0 && end > self.max_size && self.size + start as u64 > 0 {
            let entry = self.batch.split_off(start);
            self.batch_lines -= 1;
            self.flush();
            self.rotate();
            self.batch = entry;
            self.batch_lines += 1;
        }
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes the batch; on failure takes back what was written of it, so that the file holds whole lines only.
    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let lines = std::mem::take(&mut self.batch_lines);
        if batch.is_empty() {
            return;
        }
        match self.file.write_all(&batch) {
            Ok(()) => {
                self.size += batch.len() as u64;
                self.dropped = 0;
            }
            Err(_disk_full) => {
                let _best_effort = self.file.set_len(self.size);
                self.dropped += lines;
            }
        }
    }

    fn rotate(&mut self) {
        if self.max_files == 1 {
            if self.file.set_len(0).is_ok() {
                self.size = 0;
            }
            return;
        }
        self.rotated.shift(&self.path, self.max_files, self.compress);
        // A file that cannot be made or moved is a full or broken disk: go on in the old one rather than lose lines.
        if let Ok(file) = open_log(&self.path) {
            self.size = file.metadata().map_or(0, |metadata| metadata.len());
            self.file = file;
        }
    }

    /// The next rotated file to compress, when none is being compressed.
    pub(crate) fn compress_job(&mut self) -> Option<CompressJob> {
        self.rotated.compress_job(&self.path)
    }

    /// Takes note that the compression begun last has ended.
    pub(crate) fn compressed(&mut self, succeeded: bool) {
        self.rotated.compressed(&self.path, succeeded);
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream != Stream::Stdout)
}

fn open_log(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests;
