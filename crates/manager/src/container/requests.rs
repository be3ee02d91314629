//! What callers ask of containers, and the small answers.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{ContainerCreateBody, ContainerWaitResponse};
use crate::stream::AttachStream;

/// The body of a create call and its query parameters.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// The name; made up when absent.
    pub name: Option<String>,
    /// `os/arch[/variant]` of the image to use.
    pub platform: Option<String>,
    /// The body.
    pub body: ContainerCreateBody,
    /// Its restart policy, which reads `on-failure`, is `on-unhealthy`.
    pub on_unhealthy: bool,
}

/// Whether a call changed anything, or found the object as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The state changed.
    Changed,
    /// It was so already (HTTP 304).
    Unchanged,
}

/// How a container is to be stopped.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Seconds before it is killed; negative waits for ever; none uses the container's own.
    pub timeout_seconds: Option<i64>,
    /// Signal instead of the container's own stop signal.
    pub signal: Option<String>,
}

/// How a container is to be removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// When a wait call is to return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once if the container does not run, else when it stops.
    #[default]
    NotRunning,
    /// When it stops the next time.
    NextExit,
    /// When it is removed.
    Removed,
}

impl WaitCondition {
    /// The `condition` query parameter; empty means not-running.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InvalidInput`] for any other word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(Error::invalid(format!("invalid condition: \"{text}\""))),
        }
    }
}

/// The second half of a wait: registered already, so that no exit is missed, it yields the status.
pub type WaitFuture = Pin<Box<dyn Future<Output = Result<ContainerWaitResponse>> + Send>>;

/// What a list call wants.
#[derive(Debug, Clone, Default)]
pub struct ListContainers {
    /// Also those that do not run.
    pub all: bool,
    /// Only the newest so many (of all states).
    pub limit: Option<usize>,
    /// Also the sizes, which takes time.
    pub size: bool,
    /// Filters.
    pub filters: Filters,
}

/// Which part of the log, in which form.
#[derive(Debug, Clone, Default)]
pub struct LogsRequest {
    /// Go on as lines appear.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Only lines at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<i128>,
    /// Only lines at or before this time, in nanoseconds since 1970.
    pub until_ns: Option<i128>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Put the `labels` and `env` attributes before each line.
    pub details: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
}

/// Which streams to attach.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachRequest {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// Stay attached.
    pub stream: bool,
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How statistics are wanted.
#[derive(Debug, Clone, Copy)]
pub struct StatsRequest {
    /// A sample each second until the container goes.
    pub stream: bool,
    /// One sample at once, without the earlier one to compare with.
    pub one_shot: bool,
}

/// How a prepared exec is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    /// Return at once.
    pub detach: bool,
    /// The first size of the terminal.
    pub console_size: Option<TerminalSize>,
}

/// A started exec.
#[derive(Debug)]
pub enum ExecStarted {
    /// It runs on its own.
    Detached,
    /// Its streams.
    Attached(AttachStream),
}

/// A file in a container, as the archive calls describe it (base64 of this in a header).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last component of the path.
    pub name: String,
    /// Size in bytes.
    pub size: i64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    /// Modification time, RFC 3339.
    pub mtime: String,
    /// Where a symbolic link leads, inside the container.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// Where and how an archive is to be unpacked.
#[derive(Debug, Clone, Default)]
pub struct ArchivePut {
    /// An existing directory in the container.
    pub path: String,
    /// Refuse to put a file where a directory is, and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the owners of the archive.
    pub copy_uid_gid: bool,
}
