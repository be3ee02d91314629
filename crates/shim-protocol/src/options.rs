//! Runtime options that travel in `CreateTaskRequest.options` and `ExecProcessRequest.spec`.

use prost::Message;

use crate::types::Named;

/// `type_url` of an OCI `Process` in JSON, as containerd sends it in `ExecProcessRequest.spec`.
pub const PROCESS_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// `type_url` of OCI `LinuxResources` in JSON, as containerd sends it in `UpdateTaskRequest.resources`.
pub const LINUX_RESOURCES_TYPE_URL: &str =
    "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// `brig.shim.v1.Options`: what brigd asks of a shim at Create.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Options {
    /// State directory of the runtime (`brig-runtime --root`).
    #[prost(string, tag = "1")]
    pub runtime_root: String,
    /// An external OCI runtime program; empty is the built-in one.
    #[prost(string, tag = "2")]
    pub runtime_binary: String,
    /// Make cgroups through systemd.
    #[prost(bool, tag = "3")]
    pub systemd_cgroup: bool,
    /// Where output is logged; absent is nowhere.
    #[prost(message, optional, tag = "4")]
    pub log: Option<LogOptions>,
    /// Keep standard input open for attached clients; else the process reads `/dev/null`.
    #[prost(bool, tag = "5")]
    pub open_stdin: bool,
    /// Close standard input when the first client that attached with it leaves or half-closes.
    #[prost(bool, tag = "6")]
    pub stdin_once: bool,
    /// Keep the runtime from giving the container a session keyring of its own.
    #[prost(bool, tag = "7")]
    pub no_new_keyring: bool,
    /// Enter the root file system with chroot semantics where pivot_root(2) cannot work (ramfs roots).
    #[prost(bool, tag = "8")]
    pub no_pivot: bool,
    /// Arguments for the external runtime program, before its own.
    #[prost(string, repeated, tag = "9")]
    pub runtime_arguments: Vec<String>,
}

impl Named for Options {
    const TYPE_URL: &'static str = "brig.shim.v1.Options";
}

/// `brig.shim.v1.LogOptions`: the log that the shim writes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogOptions {
    /// `json-file`, `journald`, `none` (also when empty), or `binary://PROGRAM?ARGUMENT=VALUE` as containerd has it.
    #[prost(string, tag = "1")]
    pub driver: String,
    /// The file, absolute; rotated files are `<path>.1`, `<path>.2` … (`.gz` when compressed).
    #[prost(string, tag = "2")]
    pub path: String,
    /// Rotate when the next line would pass this many bytes; 0 never rotates.
    #[prost(uint64, tag = "3")]
    pub max_size_bytes: u64,
    /// Files kept, the current one included; 0 and 1 both mean that one file is kept.
    #[prost(uint32, tag = "4")]
    pub max_files: u32,
    /// Compress rotated files with gzip.
    #[prost(bool, tag = "5")]
    pub compress: bool,
    /// Rather drop lines than let the container wait for the log, once [`Self::max_buffer_bytes`] wait.
    #[prost(bool, tag = "6")]
    pub non_blocking: bool,
    /// Bytes of output that may wait; 0 is 1 MiB.
    #[prost(uint64, tag = "7")]
    pub max_buffer_bytes: u64,
    /// Fields of every entry of a journal, `NAME=value`.
    #[prost(string, repeated, tag = "8")]
    pub journal_fields: Vec<String>,
}

impl LogOptions {
    /// No log is kept.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(&*self.driver, "" | "none")
    }
}

/// `brig.shim.v1.ExecOptions`: what brigd sends in `ExecProcessRequest.spec`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExecOptions {
    /// Keep standard input open for the attached client; it closes when that client half-closes.
    #[prost(bool, tag = "1")]
    pub open_stdin: bool,
    /// The OCI `Process`, JSON.
    #[prost(bytes = "vec", tag = "2")]
    pub process: Vec<u8>,
}

impl Named for ExecOptions {
    const TYPE_URL: &'static str = "brig.shim.v1.ExecOptions";
}

/// `containerd.runc.v1.Options`: what containerd's clients send for runc's shim; ours honours the same.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuncOptions {
    /// Do not pivot_root(2).
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    /// Do not make a session keyring.
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// cgroup to move the shim into.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// Owner of the stdio pipes.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    /// Group of the stdio pipes.
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// An external OCI runtime program.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// State directory of the runtime.
    #[prost(string, tag = "7")]
    pub root: String,
    /// The criu program (containerd up to 1.7).
    #[prost(string, tag = "8")]
    pub criu_path: String,
    /// Make cgroups through systemd.
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    /// CRIU images directory.
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    /// CRIU work directory.
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
    /// Address of a task API served elsewhere.
    #[prost(string, tag = "12")]
    pub task_api_address: String,
    /// Its version.
    #[prost(uint32, tag = "13")]
    pub task_api_version: u32,
}

impl Named for RuncOptions {
    const TYPE_URL: &'static str = "containerd.runc.v1.Options";
}

/// `containerd.runc.v1.CheckpointOptions`: how to save a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CheckpointOptions {
    /// End the container when it is saved.
    #[prost(bool, tag = "1")]
    pub exit: bool,
    /// Save established TCP connections.
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    /// Allow Unix sockets that are connected to the outside.
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    /// Allow a session and a terminal of the outside.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Save file locks.
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    /// Namespaces whose properties are not saved.
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    /// What of cgroups is saved.
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    /// Image directory, where the request names none.
    #[prost(string, tag = "8")]
    pub image_path: String,
    /// Directory of the log.
    #[prost(string, tag = "9")]
    pub work_path: String,
}

impl Named for CheckpointOptions {
    const TYPE_URL: &'static str = "containerd.runc.v1.CheckpointOptions";
}

/// `containerd.runc.v1.ProcessDetails`: the exec id of a process in `PidsResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessDetails {
    /// Exec id.
    #[prost(string, tag = "1")]
    pub exec_id: String,
}

impl Named for ProcessDetails {
    const TYPE_URL: &'static str = "containerd.runc.v1.ProcessDetails";
}
