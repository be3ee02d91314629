//! Bodies that the generated [`models`](crate::models) lack, or describe for a newer version than the one served.

use serde::{Deserialize, Serialize};

use crate::models::{ContainerInspectResponse, ContainerSummary, ImageSummary, Volume};
use crate::restart::Restarting;

/// The answer to `POST /containers/{id}/exec`.
///
/// The generated type writes the key in lower case, which clients that match keys exactly do not find.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdResponse {
    /// The id of what was created.
    #[serde(rename = "Id", alias = "ID", alias = "id")]
    pub id: String,
}

/// The answer to `GET /system/df` up to API 1.51. Absent lists were not asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Bytes that the layers of all images take on disk.
    #[serde(rename = "LayersSize", default)]
    pub layers_size: i64,
    /// Every image.
    #[serde(rename = "Images", default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ImageSummary>>,
    /// Every container, with sizes.
    #[serde(rename = "Containers", default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<ContainerSummary>>,
    /// Every volume, with usage.
    #[serde(rename = "Volumes", default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Volume>>,
    /// The build cache.
    #[serde(rename = "BuildCache", default, skip_serializing_if = "Option::is_none")]
    pub build_cache: Option<Vec<serde_json::Value>>,
    /// Bytes that the builder takes.
    #[serde(rename = "BuilderSize", default)]
    pub builder_size: i64,
}

/// A container in `GET /containers/json`, with what Docker does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListedContainer {
    /// What Docker tells.
    #[serde(flatten)]
    pub container: ContainerSummary,
    /// Why it does not run, in one line; absent while it runs, and when it ended well by itself.
    #[serde(rename = "Death", default, skip_serializing_if = "Option::is_none")]
    pub death: Option<String>,
}

/// What `GET /containers/{id}/json` is made of: the death is `State.Death` there, which Docker does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InspectedContainer {
    /// What Docker tells.
    pub container: Restarting<ContainerInspectResponse>,
    /// How it ended last, also while it runs again.
    pub death: Option<Death>,
}

/// How a container ended last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Death {
    /// Why, in one line; empty when it ended well by itself.
    pub reason: String,
    /// Its exit code, or 128 plus the signal.
    pub exit_code: i64,
    /// The signal that ended it (`SIGKILL`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Who sent that signal, or the one that it ended after, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_sender: Option<String>,
    /// The kernel killed one of its processes for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Why it never ran, or why the code is not its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What its memory came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<DeathMemory>,
    /// The last lines that it wrote, the oldest first.
    pub last_lines: Vec<DeathLine>,
    /// The phases of its life.
    pub phases: Vec<DeathPhase>,
}

/// The memory of a container that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeathMemory {
    /// The most that was ever in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    #[serde(rename = "OOMKills")]
    pub oom_kills: u64,
    /// The last of them, by its command name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<String>,
    /// Its process id in the host's numbering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim_pid: Option<u32>,
}

/// A line that a container wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeathLine {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Its text, control characters and all.
    pub text: String,
}

/// A phase of a container's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeathPhase {
    /// What was reached: `created`, `started`, `exited`, `recorded`.
    pub name: String,
    /// When, RFC 3339.
    pub at: String,
    /// How long that took, from the phase before or from when it was asked for.
    pub seconds: f64,
}

/// One object of the answer to `GET /system/df/explain`, which Docker does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsageEntry {
    /// `blob`, `layer`, `container`, `log`, `files`, `volume`, `transfer`, `removed` or `records`.
    #[serde(rename = "Kind", default)]
    pub kind: String,
    /// Which one.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// Bytes allocated on disk.
    #[serde(rename = "Bytes", default)]
    pub bytes: i64,
    /// What keeps it: names of images, containers and volumes. Empty for what the next removal or prune takes.
    #[serde(rename = "HeldBy", default)]
    pub holders: Vec<String>,
}

/// The answer to `GET /system/check` and `POST /system/check`, which Docker does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemCheck {
    /// Containers looked at.
    #[serde(rename = "Containers", default)]
    pub containers: i64,
    /// Images looked at.
    #[serde(rename = "Images", default)]
    pub images: i64,
    /// Networks looked at.
    #[serde(rename = "Networks", default)]
    pub networks: i64,
    /// Blobs of images whose bytes were hashed again; none where only records were compared.
    #[serde(rename = "Blobs", default)]
    pub blobs: i64,
    /// Bytes hashed.
    #[serde(rename = "Bytes", default)]
    pub bytes: i64,
    /// What does not fit together; empty when all is well.
    #[serde(rename = "Findings", default)]
    pub findings: Vec<CheckFinding>,
}

/// Something that does not fit together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    /// What it is about.
    #[serde(rename = "Object", default)]
    pub object: String,
    /// What is wrong with it.
    #[serde(rename = "Problem", default)]
    pub problem: String,
    /// What to do about it.
    #[serde(rename = "Remedy", default)]
    pub remedy: String,
    /// This call put it right.
    #[serde(rename = "Repaired", default)]
    pub repaired: bool,
    /// Nothing is lost or damaged: it takes space, or is made again when it is needed.
    #[serde(rename = "Harmless", default)]
    pub harmless: bool,
}

/// What `GET /_ping` says in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// The newest version that the daemon speaks (`Api-Version`).
    pub api_version: Option<crate::ApiVersion>,
    /// The daemon's operating system (`Ostype`).
    pub os_type: Option<String>,
    /// The daemon's name and version (`Server`).
    pub server: Option<String>,
}
