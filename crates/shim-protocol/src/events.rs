//! Events that a shim publishes to containerd, and the service that takes them.

use prost::Message;

use crate::types::{Any, Mount, Named, Timestamp};

/// ttrpc service at containerd's `TTRPC_ADDRESS`; its one method is [`FORWARD`].
pub const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// [`ForwardRequest`] → [`crate::types::Empty`].
pub const FORWARD: &str = "Forward";

/// An event with a topic.
pub trait Event: Named {
    /// The topic that containerd's subscribers filter by.
    const TOPIC: &'static str;
}

/// Carries one event.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardRequest {
    /// The event.
    #[prost(message, optional, tag = "1")]
    pub envelope: Option<Envelope>,
}

/// `containerd.types.Envelope`: an event with where and when.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// When it happened.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// containerd namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// [`Event::TOPIC`].
    #[prost(string, tag = "3")]
    pub topic: String,
    /// The event.
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// Standard streams of a [`TaskCreate`].
#[derive(Clone, PartialEq, Message)]
pub struct TaskIo {
    /// FIFO.
    #[prost(string, tag = "1")]
    pub stdin: String,
    /// FIFO or URI.
    #[prost(string, tag = "2")]
    pub stdout: String,
    /// FIFO or URI.
    #[prost(string, tag = "3")]
    pub stderr: String,
    /// Has a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
}

/// A container was made.
#[derive(Clone, PartialEq, Message)]
pub struct TaskCreate {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Bundle directory.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Root file system mounts.
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    /// Standard streams.
    #[prost(message, optional, tag = "4")]
    pub io: Option<TaskIo>,
    /// Restored from.
    #[prost(string, tag = "5")]
    pub checkpoint: String,
    /// Init's process id.
    #[prost(uint32, tag = "6")]
    pub pid: u32,
}

impl Named for TaskCreate {
    const TYPE_URL: &'static str = "containerd.events.TaskCreate";
}

impl Event for TaskCreate {
    const TOPIC: &'static str = "/tasks/create";
}

/// A container was started.
#[derive(Clone, PartialEq, Message)]
pub struct TaskStart {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Init's process id.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

impl Named for TaskStart {
    const TYPE_URL: &'static str = "containerd.events.TaskStart";
}

impl Event for TaskStart {
    const TOPIC: &'static str = "/tasks/start";
}

/// An ended process was forgotten.
#[derive(Clone, PartialEq, Message)]
pub struct TaskDelete {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Process id.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Exit code.
    #[prost(uint32, tag = "3")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "4")]
    pub exited_at: Option<Timestamp>,
    /// Exec id; empty for init.
    #[prost(string, tag = "5")]
    pub id: String,
}

impl Named for TaskDelete {
    const TYPE_URL: &'static str = "containerd.events.TaskDelete";
}

impl Event for TaskDelete {
    const TOPIC: &'static str = "/tasks/delete";
}

/// A process ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExit {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Exec id; the container id for init.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Process id.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Exit code.
    #[prost(uint32, tag = "4")]
    pub exit_status: u32,
    /// When.
    #[prost(message, optional, tag = "5")]
    pub exited_at: Option<Timestamp>,
}

impl Named for TaskExit {
    const TYPE_URL: &'static str = "containerd.events.TaskExit";
}

impl Event for TaskExit {
    const TOPIC: &'static str = "/tasks/exit";
}

/// The kernel killed a process of the container for want of memory.
#[derive(Clone, PartialEq, Message)]
pub struct TaskOom {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

impl Named for TaskOom {
    const TYPE_URL: &'static str = "containerd.events.TaskOOM";
}

impl Event for TaskOom {
    const TOPIC: &'static str = "/tasks/oom";
}

/// A further process was prepared.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExecAdded {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Exec id.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

impl Named for TaskExecAdded {
    const TYPE_URL: &'static str = "containerd.events.TaskExecAdded";
}

impl Event for TaskExecAdded {
    const TOPIC: &'static str = "/tasks/exec-added";
}

/// A further process was started.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExecStarted {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Exec id.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Process id.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

impl Named for TaskExecStarted {
    const TYPE_URL: &'static str = "containerd.events.TaskExecStarted";
}

impl Event for TaskExecStarted {
    const TOPIC: &'static str = "/tasks/exec-started";
}

/// A container was frozen.
#[derive(Clone, PartialEq, Message)]
pub struct TaskPaused {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

impl Named for TaskPaused {
    const TYPE_URL: &'static str = "containerd.events.TaskPaused";
}

impl Event for TaskPaused {
    const TOPIC: &'static str = "/tasks/paused";
}

/// A container was thawed.
#[derive(Clone, PartialEq, Message)]
pub struct TaskResumed {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

impl Named for TaskResumed {
    const TYPE_URL: &'static str = "containerd.events.TaskResumed";
}

impl Event for TaskResumed {
    const TOPIC: &'static str = "/tasks/resumed";
}

/// A container was saved.
#[derive(Clone, PartialEq, Message)]
pub struct TaskCheckpointed {
    /// Container id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Image directory.
    #[prost(string, tag = "2")]
    pub checkpoint: String,
}

impl Named for TaskCheckpointed {
    const TYPE_URL: &'static str = "containerd.events.TaskCheckpointed";
}

impl Event for TaskCheckpointed {
    const TOPIC: &'static str = "/tasks/checkpointed";
}
