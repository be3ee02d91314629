//! The task service: `containerd.task.v3.Task`, and the same as `containerd.task.v2.Task`.

use prost::Message;

use crate::types::{Any, Mount, ProcessInfo, Status, Timestamp};

/// ttrpc service name of the API's version 2 (containerd up to 1.7).
pub const SERVICE_V2: &str = "containerd.task.v2.Task";

/// ttrpc service name of version 3 (containerd 2, brigd).
pub const SERVICE_V3: &str = "containerd.task.v3.Task";

/// Names of the service's methods.
pub mod method {

    /// [`super::StateRequest`] → [`super::StateResponse`].
    pub const STATE: &str = "State";
    /// [`super::CreateTaskRequest`] → [`super::CreateTaskResponse`].
    pub const CREATE: &str = "Create";
    /// [`super::StartRequest`] → [`super::StartResponse`].
    pub const START: &str = "Start";
    /// [`super::DeleteRequest`] → [`super::DeleteResponse`].
    pub const DELETE: &str = "Delete";
    /// [`super::PidsRequest`] → [`super::PidsResponse`].
    pub const PIDS: &str = "Pids";
    /// [`super::PauseRequest`] → [`crate::types::Empty`].
    pub const PAUSE: &str = "Pause";
    /// [`super::ResumeRequest`] → [`crate::types::Empty`].
    pub const RESUME: &str = "Resume";
    /// [`super::CheckpointTaskRequest`] → [`crate::types::Empty`].
    pub const CHECKPOINT: &str = "Checkpoint";
    /// [`super::KillRequest`] → [`crate::types::Empty`].
    pub const KILL: &str = "Kill";
    /// [`super::ExecProcessRequest`] → [`crate::types::Empty`].
    pub const EXEC: &str = "Exec";
    /// [`super::ResizePtyRequest`] → [`crate::types::Empty`].
    pub const RESIZE_PTY: &str = "ResizePty";
    /// [`super::CloseIORequest`] → [`crate::types::Empty`].
    pub const CLOSE_IO: &str = "CloseIO";
    /// [`super::UpdateTaskRequest`] → [`crate::types::Empty`].
    pub const UPDATE: &str = "Update";
    /// [`super::WaitRequest`] → [`super::WaitResponse`].
    pub const WAIT: &str = "Wait";
    /// [`super::StatsRequest`] → [`super::StatsResponse`].
    pub const STATS: &str = "Stats";
    /// [`super::ConnectRequest`] → [`super::ConnectResponse`].
    pub const CONNECT: &str = "Connect";
    /// [`super::ShutdownRequest`] → [`crate::types::Empty`].
    pub const SHUTDOWN: &str = "Shutdown";
}

/// Make a container (and start the process that becomes its init, held before exec).
#[derive(Clone, PartialEq, Message)]
pub struct CreateTaskRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// OCI bundle directory, absolute.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Mounts that make up the root file system; none means that `root.path` is one already.
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    /// Give the process a pseudo-terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// FIFO to read standard input from; empty under brigd.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// FIFO or URI (`fifo`, `file`, `binary`) for standard output; empty under brigd.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// The same for standard error.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// Restore from this checkpoint.
    #[prost(string, tag = "8")]
    pub checkpoint: String,
    /// Its parent.
    #[prost(string, tag = "9")]
    pub parent_checkpoint: String,
    /// [`crate::options::Options`] or [`crate::options::RuncOptions`].
    #[prost(message, optional, tag = "10")]
    pub options: Option<Any>,
}

/// The made container.
#[derive(Clone, PartialEq, Message)]
pub struct CreateTaskResponse {
    /// Init's process id.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// Forget an ended process; for init, remove what the container left.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// How it ended; also what the `delete` command prints.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteResponse {
    /// Its process id.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Exit code, or 128 plus the signal.
    #[prost(uint32, tag = "2")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "3")]
    pub exited_at: Option<Timestamp>,
}

/// Prepare a further process in a container; Start runs it.
#[derive(Clone, PartialEq, Message)]
pub struct ExecProcessRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Give it a pseudo-terminal.
    #[prost(bool, tag = "3")]
    pub terminal: bool,
    /// As in [`CreateTaskRequest`].
    #[prost(string, tag = "4")]
    pub stdin: String,
    /// As in [`CreateTaskRequest`].
    #[prost(string, tag = "5")]
    pub stdout: String,
    /// As in [`CreateTaskRequest`].
    #[prost(string, tag = "6")]
    pub stderr: String,
    /// OCI `Process` in JSON ([`crate::options::PROCESS_TYPE_URL`]) or [`crate::options::ExecOptions`].
    #[prost(message, optional, tag = "7")]
    pub spec: Option<Any>,
}

/// Set the terminal's size.
#[derive(Clone, PartialEq, Message)]
pub struct ResizePtyRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Columns.
    #[prost(uint32, tag = "3")]
    pub width: u32,
    /// Rows.
    #[prost(uint32, tag = "4")]
    pub height: u32,
}

/// Ask for a process's state.
#[derive(Clone, PartialEq, Message)]
pub struct StateRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// The state of a process.
#[derive(Clone, PartialEq, Message)]
pub struct StateResponse {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Bundle directory.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Process id; 0 before it exists.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// State.
    #[prost(enumeration = "Status", tag = "4")]
    pub status: i32,
    /// As asked at Create or Exec.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// As asked at Create or Exec.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// As asked at Create or Exec.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// Has a terminal.
    #[prost(bool, tag = "8")]
    pub terminal: bool,
    /// Exit code once stopped.
    #[prost(uint32, tag = "9")]
    pub exit_status: u32,
    /// When it stopped.
    #[prost(message, optional, tag = "10")]
    pub exited_at: Option<Timestamp>,
    /// Exec id.
    #[prost(string, tag = "11")]
    pub exec_id: String,
}

/// Send a signal.
#[derive(Clone, PartialEq, Message)]
pub struct KillRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Signal number.
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    /// To every process of the container.
    #[prost(bool, tag = "4")]
    pub all: bool,
}

/// Close standard input.
#[derive(Clone, PartialEq, Message)]
pub struct CloseIORequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Must be true to have an effect.
    #[prost(bool, tag = "3")]
    pub stdin: bool,
}

/// List the container's processes.
#[derive(Clone, PartialEq, Message)]
pub struct PidsRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The container's processes.
#[derive(Clone, PartialEq, Message)]
pub struct PidsResponse {
    /// One entry each.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<ProcessInfo>,
}

/// Save a container.
#[derive(Clone, PartialEq, Message)]
pub struct CheckpointTaskRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Image directory.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Options.
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
}

/// Change resource limits.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateTaskRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// OCI `LinuxResources`, JSON.
    #[prost(message, optional, tag = "2")]
    pub resources: Option<Any>,
    /// Annotations.
    #[prost(map = "string, string", tag = "3")]
    pub annotations: std::collections::HashMap<String, String>,
}

/// Let a created or prepared process run.
#[derive(Clone, PartialEq, Message)]
pub struct StartRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// It runs.
#[derive(Clone, PartialEq, Message)]
pub struct StartResponse {
    /// Its process id.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// Answered when the process has ended.
#[derive(Clone, PartialEq, Message)]
pub struct WaitRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Exec id; empty is the container's init.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// How it ended.
#[derive(Clone, PartialEq, Message)]
pub struct WaitResponse {
    /// Exit code, or 128 plus the signal.
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    /// When.
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Timestamp>,
}

/// Ask for resource usage.
#[derive(Clone, PartialEq, Message)]
pub struct StatsRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Resource usage.
#[derive(Clone, PartialEq, Message)]
pub struct StatsResponse {
    /// [`crate::metrics::v1::Metrics`] or [`crate::metrics::v2::Metrics`].
    #[prost(message, optional, tag = "1")]
    pub stats: Option<Any>,
}

/// Ask for the shim's identity.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The shim's identity.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectResponse {
    /// The shim's process id.
    #[prost(uint32, tag = "1")]
    pub shim_pid: u32,
    /// Init's.
    #[prost(uint32, tag = "2")]
    pub task_pid: u32,
    /// The shim's version.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// End the shim; ignored while a container is left, unless `now`.
#[derive(Clone, PartialEq, Message)]
pub struct ShutdownRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Even so.
    #[prost(bool, tag = "2")]
    pub now: bool,
}

/// Freeze.
#[derive(Clone, PartialEq, Message)]
pub struct PauseRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Thaw.
#[derive(Clone, PartialEq, Message)]
pub struct ResumeRequest {
    /// Container id.
    #[prost(string, tag = "1")]
    pub id: String,
}
