//! What is kept about each object. These types are the on-disk format: fields are only ever added, with defaults.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use brig_network::{Endpoint, NetworkConfig};
use serde::{Deserialize, Serialize};

use crate::container::{DeathRecord, Phase, SentSignal};
use crate::models::{ContainerConfig, EndpointSettings, HostConfig};
use crate::shim_client::Exit;

/// What the record of a death says of an end that left no trace.
const UNSEEN: &str = "its end was not seen, as after a power cut";

/// All that is kept about a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub(crate) created_at: String,
    /// The image as the request named it.
    pub(crate) image: String,
    /// Digest of the image's configuration.
    pub(crate) image_id: String,
    /// Digest of the manifest that the image was resolved to.
    pub(crate) manifest: String,
    /// Chain identifier of the image's topmost layer: the parent of the container's snapshot.
    pub(crate) parent_layer: Option<String>,
    /// The request's configuration with the image's filled in.
    pub(crate) config: ContainerConfig,
    pub(crate) host_config: HostConfig,
    /// Program and arguments of the first process.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) mounts: Vec<MountRecord>,
    /// Networks by name.
    pub(crate) networks: BTreeMap<String, Attachment>,
    pub(crate) state: StateRecord,
    /// The restart policy of `host_config`, which reads `on-failure`, is `on-unhealthy`.
    pub(crate) restarts_unhealthy: bool,
    /// What the record owns is still being made, and nobody was told of the container yet.
    pub(crate) incomplete: bool,
}

/// Where the container stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StateRecord {
    pub(crate) phase: Phase,
    /// Process id of the first process, 0 when there is none.
    pub(crate) pid: u32,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why the last start failed.
    pub(crate) error: String,
    /// RFC 3339; empty before the first start.
    pub(crate) started_at: String,
    /// RFC 3339; empty before the first exit.
    pub(crate) finished_at: String,
    /// Restarts by the restart policy since the last start by hand.
    pub(crate) restart_count: u32,
    /// Stopped by a call, so `unless-stopped` leaves it stopped.
    pub(crate) stopped_by_hand: bool,
    /// Exits so far: waiters compare it.
    pub(crate) exits: u64,
    pub(crate) health: Option<HealthRecord>,
    /// How it ended last; kept while it runs again.
    pub(crate) death: Option<DeathRecord>,
    /// The last signal that was sent to the run that goes on.
    pub(crate) sent: Option<SentSignal>,
    /// The removal under way takes the anonymous volumes along.
    pub(crate) removes_volumes: bool,
}

impl StateRecord {
    /// Records the end of the first process; the phase is the caller's to choose.
    pub(crate) fn note_exit(&mut self, exit: Exit) {
        self.note_death(DeathRecord {
            exit_code: exit.code,
            signal: exit.signal,
            oom_killed: exit.oom_killed,
            error: if exit.unseen { UNSEEN.to_owned() } else { exit.error.clone() },
            account: exit.account,
            ..DeathRecord::default()
        });
        self.pid = 0;
        self.exit_code = exit.code;
        self.oom_killed = exit.oom_killed;
        self.error = exit.error;
        self.finished_at = exit.at;
        self.exits += 1;
    }
}

/// What the health check found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthRecord {
    /// `starting`, `healthy` or `unhealthy`.
    pub(crate) status: String,
    pub(crate) failing_streak: i64,
    /// The last probes: start, end (RFC 3339), exit code, output.
    pub(crate) log: Vec<(String, String, i64, String)>,
}

/// What a mount is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

/// A mount that the request or the image asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// The volume's name.
    pub(crate) name: Option<String>,
    /// Path on the host.
    pub(crate) source: String,
    /// Path in the container.
    pub(crate) destination: String,
    pub(crate) read_write: bool,
    /// Mount propagation of a bind (`rprivate`, …); empty for the default.
    pub(crate) propagation: String,
    /// The mode as it was written (`ro,z`), shown by inspect.
    pub(crate) mode: String,
    /// Only the directory itself, not what is mounted beneath.
    pub(crate) non_recursive: bool,
    /// The volume was made for this container and goes with it (`rm -v`, `--rm`).
    pub(crate) anonymous: bool,
    /// The path inside the volume that the container gets; empty for all of it.
    pub(crate) subpath: String,
    /// Do not copy the image's files into the new volume.
    pub(crate) no_copy: bool,
    /// Labels and options for the volume, if it has to be made.
    pub(crate) volume_labels: BTreeMap<String, String>,
    pub(crate) volume_options: BTreeMap<String, String>,
    /// Options of a tmpfs (`size=64m`, `mode=1770`).
    pub(crate) tmpfs_options: Vec<String>,
    /// Make the bind's source if it is missing (`-v`, not `--mount`).
    pub(crate) create_source: bool,
}

/// A container's membership of a network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attachment {
    /// What the request asked for.
    pub(crate) settings: EndpointSettings,
    /// What is set up, while the container runs.
    pub(crate) endpoint: Option<EndpointRecord>,
}

/// A container's place in a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    /// Identifier that users see.
    pub(crate) id: String,
    pub(crate) network_id: String,
    /// What is (to be) set up in the kernel.
    pub(crate) endpoint: Endpoint,
}

impl EndpointRecord {
    /// The gateway of its network, if that leads out.
    pub(crate) fn address(&self) -> IpAddr {
        self.endpoint.address.address()
    }
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    /// What is (to be) set up in the kernel, name and id included.
    pub(crate) config: NetworkConfig,
    pub(crate) created_at: String,
    pub(crate) attachable: bool,
    pub(crate) labels: HashMap<String, String>,
    /// The subnet was asked for, not chosen.
    pub(crate) subnet_requested: bool,
    /// `bridge`, `host` and `none`: made by the engine, and never removed.
    pub(crate) predefined: bool,
}
