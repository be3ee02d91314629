//! The messages of the Kubernetes container runtime interface that the test speaks (`runtime.v1`, its `api.proto`), with
//! the fields it uses.

use std::collections::HashMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Version {
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(message, tag = "1")]
    pub(super) status: Option<Conditions>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Conditions {
    #[prost(message, repeated, tag = "1")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Condition {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bool, tag = "2")]
    pub(super) status: bool,
    #[prost(string, tag = "4")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(message, tag = "1")]
    pub(super) metadata: Option<PodMetadata>,
    #[prost(string, tag = "2")]
    pub(super) hostname: String,
    #[prost(string, tag = "3")]
    pub(super) log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    pub(super) labels: HashMap<String, String>,
    #[prost(message, tag = "8")]
    pub(super) linux: Option<PodOnLinux>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodOnLinux {
    #[prost(string, tag = "1")]
    pub(super) cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RunPod {
    #[prost(message, tag = "1")]
    pub(super) config: Option<Pod>,
    #[prost(string, tag = "2")]
    pub(super) runtime_handler: String,
}

/// A pod, or a container, by its id; a request or an answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Id {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodStatus {
    #[prost(message, tag = "1")]
    pub(super) status: Option<PodState>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodState {
    /// 0 when ready.
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(message, tag = "5")]
    pub(super) network: Option<PodNetwork>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodNetwork {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateContainer {
    #[prost(string, tag = "1")]
    pub(super) pod: String,
    #[prost(message, tag = "2")]
    pub(super) config: Option<Container>,
    #[prost(message, tag = "3")]
    pub(super) pod_config: Option<Pod>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(message, tag = "1")]
    pub(super) metadata: Option<ContainerMetadata>,
    #[prost(message, tag = "2")]
    pub(super) image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    pub(super) command: Vec<String>,
    #[prost(string, tag = "11")]
    pub(super) log_path: String,
    #[prost(message, tag = "15")]
    pub(super) linux: Option<ContainerOnLinux>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerOnLinux {
    #[prost(message, tag = "1")]
    pub(super) resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resources {
    #[prost(int64, tag = "4")]
    pub(super) memory_limit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateResources {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(message, tag = "2")]
    pub(super) linux: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Exec {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) command: Vec<String>,
    #[prost(int64, tag = "3")]
    pub(super) timeout_seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) stdout: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) exit_code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StopContainer {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(int64, tag = "2")]
    pub(super) timeout_seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatus {
    #[prost(message, tag = "1")]
    pub(super) status: Option<ContainerState>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerState {
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(int32, tag = "7")]
    pub(super) exit_code: i32,
    #[prost(string, tag = "10")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStats {
    #[prost(message, tag = "1")]
    pub(super) stats: Option<Stats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stats {
    #[prost(message, tag = "3")]
    pub(super) memory: Option<Memory>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Memory {
    #[prost(message, tag = "2")]
    pub(super) working_set: Option<Number>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(uint64, tag = "1")]
    pub(super) value: u64,
}
