//! Reading a container's entries back from the journal, by systemd's own reader: the files' format is journald's to change.
//!
//! `journalctl` picks the entries by the container's whole identifier. While it follows, it never ends by itself; when
//! the container has ended, a second one reads what came after the last entry, once journald has taken in all that was
//! sent to it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::export::{FIELDS, Parser};
use super::reader::Entry;
use crate::error::{Error, Result};

const READER: &str = "journalctl";
/// What is read at once.
const BATCH_BYTES: usize = 64 << 10;
/// Error messages of the reader are kept up to this size.
const WORDS_BYTES_MAX: u64 = 4 << 10;
/// How long journald may take to write what it has.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// Which entries are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// The container's whole identifier.
    pub(super) id: String,
    /// Not before, and not after, in nanoseconds since 1970.
    pub(super) since_ns: Option<i128>,
    pub(super) until_ns: Option<i128>,
    /// The last entries only.
    pub(super) tail: Option<usize>,
    /// Goes on with new ones.
    pub(super) follow: bool,
    /// After this place of the journal.
    pub(super) after: Option<String>,
}

impl Selection {
    /// The reader's arguments. Times are those at which journald received an entry, which is after it was written: they
    /// only spare the reader what cannot be wanted.
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--no-pager", "--quiet", "--output=export"].map(str::to_owned).to_vec();
        arguments.push(format!("--output-fields={FIELDS}"));
        match self.tail {
            Some(tail) => arguments.push(format!("--lines={tail}")),
            None => arguments.push("--lines=all".to_owned()),
        }
        if let Some(since) = self.since_ns {
            arguments.push(format!("--since=@{}", since.div_euclid(1_000_000_000)));
        }
        if let Some(until) = self.until_ns.filter(|_| self.tail.is_some()) {
            let microseconds = until.div_euclid(1_000) + 1;
            let (whole, part) =
                (microseconds.div_euclid(1_000_000), microseconds.rem_euclid(1_000_000));
            arguments.push(format!("--until=@{whole}.{part:06}"));
        }
        if let Some(cursor) = &self.after {
            arguments.push(format!("--after-cursor={cursor}"));
        }
        if self.follow {
            arguments.push("--follow".to_owned());
        }
        arguments.push(format!("CONTAINER_ID_FULL={}", self.id));
        arguments
    }
}

/// A reader that runs. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Journal {
    child: Child,
    parser: Parser,
    buffer: Vec<u8>,
}

impl Journal {
    /// Starts reading.
    pub(super) fn read_from(selection: &Selection) -> Result<Self> {
        let mut command = Command::new(READER);
        command.args(selection.arguments()).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::unsupported(
                "read the container's log from the journal: there is no journalctl on this machine; install systemd's, or \
                 log to json-file or local",
            ),
            _ => Error::io("start journalctl to read the container's log", error),
        })?;
        Ok(Self { child, parser: Parser::default(), buffer: Vec::with_capacity(BATCH_BYTES) })
    }

    /// Where the journal stood after the last entry.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.parser.cursor()
    }

    /// The next entries; `None` when there are no more. Nothing is lost if this is dropped while it waits.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<Entry>>> {
        let what = || "read the container's log from journalctl";
        let Some(output) = self.child.stdout.as_mut() else { return Ok(None) };
        self.buffer.clear();
        let count =
            output.read_buf(&mut self.buffer).await.map_err(|source| Error::io(what(), source))?;
        if count == 0 {
            return self.finish().await.map(|()| None);
        }
        let mut entries = Vec::new();
        self.parser.push(&self.buffer, &mut entries);
        Ok(Some(entries))
    }

    /// Its end, which was not a good one if it says something.
    async fn finish(&mut self) -> Result<()> {
        let mut words = Vec::new();
        if let Some(pipe) = self.child.stderr.take() {
            let _ = pipe.take(WORDS_BYTES_MAX).read_to_end(&mut words).await;
        }
        let what = "wait for journalctl, which read the container's log";
        let status = self.child.wait().await.map_err(|source| Error::io(what, source))?;
        if status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&words);
        let message =
            format!("read the container's log from the journal: {status}: {}", words.trim());
        Err(Error::io("run journalctl", std::io::Error::other(message)))
    }
}

/// Waits until journald has written what was sent to it so far. A journal that cannot be asked, as by a user without the
/// right, is read as it is.
pub(super) async fn settle() {
    let mut command = Command::new(READER);
    command.arg("--sync").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = tokio::time::timeout(SYNC_PATIENCE, command.kill_on_drop(true).status()).await;
    if !matches!(status, Ok(Ok(status)) if status.success()) {
        tracing::debug!("journalctl --sync: {status:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_one_container_s_and_what_is_asked_for_of_it() {
        let mut selection = Selection { id: "abc".into(), ..Selection::default() };
        let arguments = selection.arguments();
        assert_eq!(arguments.last().unwrap(), "CONTAINER_ID_FULL=abc");
        assert!(arguments.contains(&"--lines=all".to_owned()));
        selection.tail = Some(5);
        (selection.since_ns, selection.until_ns) = (Some(1_500_000_000), Some(2_000_000_000));
        selection.after = Some("s=1;i=2".into());
        selection.follow = true;
        let arguments = selection.arguments();
        for expected in
            ["--lines=5", "--since=@1", "--until=@2.000001", "--after-cursor=s=1;i=2", "--follow"]
        {
            assert!(arguments.contains(&expected.to_owned()), "{expected} in {arguments:?}");
        }
    }
}
