//! Reading a container's log: docker's json-file format, through all rotated files, and on as it grows; or the journal.
//!
//! The shim writes the log and rotates it whether the engine runs or not; this module only reads. A slow reader costs
//! memory for one batch of at most [`BATCH_BYTES`] and holds no thread while it is slow.

mod export;
mod follow_journal;
mod journal;
mod last_lines;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;

use brig_shim_protocol::Timestamp;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::Shared;
use super::log_driver::{self, Place};
use super::requests::LogsRequest;
use super::table::View;
use crate::blocking;
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::shim_client::Exit;
use crate::stream::LogStream;

use reader::{Entry, Reader};

/// What is read at once.
const BATCH_BYTES: usize = 256 << 10;

/// A container's log.
pub(super) async fn logs(
    shared: &Arc<Shared>,
    container: &str,
    request: LogsRequest,
) -> Result<LogStream> {
    let handle = shared.table.find(container)?;
    let view = handle.view();
    let record = &view.record;
    if !(request.stdout || request.stderr) {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let place = log_driver::readable(record, &shared.config)?;
    let details = match request.details {
        true => log_driver::details(record, &shared.config)?,
        false => String::new(),
    };
    let tty = record.config.tty.unwrap_or(false);
    let follow = request.follow && record.state.phase.is_alive();
    let tail = request.tail;
    let framing = Framing { request, details, tty, ended: false };
    let path = match place {
        Place::Files(path) => path,
        Place::Journal => {
            let views = handle.watch();
            let output = follow_journal::entries(&record.id, views, framing, follow).await?;
            return Ok(LogStream { tty, output });
        }
    };
    // The watch is set before the first read, so that nothing written in between goes unnoticed.
    let watcher = if follow { Some(Watcher::new(&path)?) } else { None };
    let reader = blocking::run(move || Reader::open(&path, tail)).await?;
    let follower = Follower { reader: Some(reader), watcher, views: handle.watch(), framing };
    let output = stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((piece, follower))
    });
    Ok(LogStream { tty, output: Box::pin(output) })
}

/// Adds what the log tells to an end that the container's own shim did not live to tell of. A log that cannot be read adds
/// nothing.
pub(super) async fn add_last_lines(shared: &Shared, record: &ContainerRecord, exit: &mut Exit) {
    let is_told = exit.error.is_empty() && !exit.unseen;
    if is_told || !exit.account.last_lines.is_empty() {
        return;
    }
    let Ok(Place::Files(path)) = log_driver::readable(record, &shared.config) else { return };
    // Lines are written before the start is noted, so the end of the run before is what tells runs apart.
    let after = Timestamp::parse(&record.state.finished_at).ok();
    match blocking::run(move || last_lines::read(&path, after)).await {
        Ok(lines) => exit.account.last_lines = lines,
        Err(error) => {
            tracing::warn!(container = %record.id, "look for its last lines: {}", error.report());
        }
    }
}

/// What of the entries is told, and how.
struct Framing {
    request: LogsRequest,
    /// Put before each line, after the time.
    details: String,
    tty: bool,
    /// No more is told.
    ended: bool,
}

struct Follower {
    /// Away while a blocking read has it.
    reader: Option<Reader>,
    watcher: Option<Watcher>,
    views: watch::Receiver<Arc<View>>,
    framing: Framing,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        while !self.framing.ended {
            // Asked before the read: what was written before the end is then seen by that read.
            let alive = self.views.borrow().record.state.phase.is_alive();
            let entries = match self.read().await {
                Ok(entries) => entries,
                Err(error) => {
                    self.framing.ended = true;
                    return Some(Err(error));
                }
            };
            if !entries.is_empty() {
                let piece = self.framing.frame(&entries);
                if !piece.is_empty() {
                    return Some(Ok(piece));
                }
                continue;
            }
            let Some(watcher) = &self.watcher else { break };
            if !alive {
                break;
            }
            let changed = async {
                tokio::select! {
                    result = watcher.changed() => result,
                    _ = self.views.changed() => Ok(()),
                }
            };
            if let Err(error) = changed.await {
                self.framing.ended = true;
                return Some(Err(error));
            }
        }
        None
    }

    async fn read(&mut self) -> Result<Vec<Entry>> {
        let Some(mut reader) = self.reader.take() else { return Ok(Vec::new()) };
        let (reader, entries) = blocking::run(move || {
            let entries = reader.read(BATCH_BYTES)?;
            Ok((reader, entries))
        })
        .await?;
        self.reader = Some(reader);
        Ok(entries)
    }
}

impl Framing {
    fn frame(&mut self, entries: &[Entry]) -> Bytes {
        let mut piece = BytesMut::new();
        for entry in entries {
            if self.request.until_ns.is_some_and(|until| entry.time_ns > until) {
                self.ended = true;
                break;
            }
            let wanted = if entry.stderr { self.request.stderr } else { self.request.stdout };
            if !wanted || self.request.since_ns.is_some_and(|since| entry.time_ns < since) {
                continue;
            }
            let time =
                if self.request.timestamps { format!("{} ", entry.time) } else { String::new() };
            if !self.tty {
                let length = u32::try_from(time.len() + self.details.len() + entry.log.len())
                    .unwrap_or(u32::MAX);
                let [a, b, c, d] = length.to_be_bytes();
                piece.extend_from_slice(&[if entry.stderr { 2 } else { 1 }, 0, 0, 0, a, b, c, d]);
            }
            piece.extend_from_slice(time.as_bytes());
            piece.extend_from_slice(self.details.as_bytes());
            piece.extend_from_slice(entry.log.as_bytes());
        }
        piece.freeze()
    }
}

/// Tells when something in the log's directory changes.
struct Watcher(AsyncFd<std::os::fd::OwnedFd>);

impl Watcher {
    fn new(log: &std::path::Path) -> Result<Self> {
        let directory: PathBuf = log.parent().map(PathBuf::from).unwrap_or_default();
        let what = || format!("watch {}", directory.display());
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let fd = inotify::init(flags).map_err(|source| Error::io(what(), source.into()))?;
        let changes = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, &directory, changes)
            .map_err(|source| Error::io(what(), source.into()))?;
        #[expect(
            deprecated,
            reason = "sound for an owned descriptor; its replacement is an unsafe function"
        )]
        let registered = AsyncFd::new(fd);
        registered.map(Self).map_err(|source| Error::io(what(), source))
    }

    async fn changed(&self) -> Result<()> {
        let mut ready =
            self.0.readable().await.map_err(|source| Error::io("wait for log lines", source))?;
        let mut buffer = [0_u8; 4096];
        // The events themselves do not matter: they are drained, the files are looked at.
        while let Ok(1..) = rustix::io::read(self.0.get_ref(), &mut buffer) {}
        ready.clear_ready();
        Ok(())
    }
}
