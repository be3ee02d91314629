//! Comparing what the records say with what exists, and removing what nobody owns.
//!
//! ```text
//! look     list what exists first and read the records second: what a record is written before and removed after
//!          cannot seem to be without an owner
//! confirm  whatever was found is looked for again after [`CONFIRM`]: containers start and end meanwhile
//! repair   what belongs to a container goes through its task, so that nothing is taken from under a start; the rest
//!          has no owner and is removed
//! ```
//!
//! Images are compared by the presence and size of their content; whether the bytes are still right is another, longer
//! question ([`content`]).

mod content;
mod existing;

pub use content::CheckNews;
pub(crate) use content::check_content;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brig_storage::SnapshotKind;

use crate::blocking;
use crate::container::{Request, Shared, make_directory, remove_orphan, snapshot_key};
use crate::error::Result;
use crate::metadata::{ContainerRecord, MountKind};

use existing::Existing;

/// Between the look and its confirmation.
const CONFIRM: Duration = Duration::from_millis(500);

/// What a check came to.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Containers looked at.
    pub containers: usize,
    /// Images looked at.
    pub images: usize,
    /// Networks looked at.
    pub networks: usize,
    /// Blobs whose bytes were hashed again.
    pub blobs: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// What does not fit together.
    pub findings: Vec<Finding>,
}

/// Something that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `container ab12…`, `snapshot …`, `link veth…`.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// It was put right by this call.
    pub repaired: bool,
    /// Nothing is lost or damaged: it takes space, or is made again when it is needed.
    pub harmless: bool,
    repair: Repair,
}

/// How a finding is put right.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    /// Only by whoever reads the remedy.
    ByHand,
    /// Tear down what is left of a container that does not run.
    Container(String),
    /// Remove all run-time state of a container without a record.
    Orphan(String),
    /// Remove the snapshot of a container without a record.
    Snapshot(String),
    /// Remove a directory.
    Directory(PathBuf),
    /// Make a container's directory again.
    Make(PathBuf),
    /// Remove links, make bridges and rules.
    Networks,
    /// Unpack the missing layers of the image with this manifest.
    Unpack(String),
    /// Make this layer again from its content.
    Layer(String),
    /// Remove content and layers that nothing needs.
    Loose,
}

impl Finding {
    fn new(
        object: impl Into<String>,
        problem: impl Into<String>,
        remedy: &str,
        repair: Repair,
    ) -> Self {
        Self {
            object: object.into(),
            problem: problem.into(),
            remedy: remedy.into(),
            repaired: false,
            harmless: false,
            repair,
        }
    }

    fn harmless(mut self) -> Self {
        self.harmless = true;
        self
    }
}

/// What `--repair` does where it can.
const REPAIR: &str = "run `brig system check --repair`";

/// Checks everything; with `repair` puts right what can be put right without losing anything that has an owner.
pub(crate) async fn check(shared: &Arc<Shared>, repair: bool) -> Result<CheckReport> {
    let mut report = confirmed(shared).await?;
    let images = shared.images.check().await?;
    report.images = images.count;
    report.findings.extend(images.damaged.into_iter().map(|(image, problem)| {
        let remedy = "pull or load the image again; its content is fetched anew";
        Finding::new(format!("image {image}"), problem, remedy, Repair::ByHand)
    }));
    if repair {
        put_all_right(shared, &mut report.findings).await;
    }
    Ok(report)
}

/// Records compared with what exists, twice.
async fn confirmed(shared: &Arc<Shared>) -> Result<CheckReport> {
    let mut report = look(shared).await?;
    if !report.findings.is_empty() {
        tokio::time::sleep(CONFIRM).await;
        let again = look(shared).await?;
        report.findings.retain(|finding| again.findings.contains(finding));
    }
    Ok(report)
}

async fn put_all_right(shared: &Arc<Shared>, findings: &mut [Finding]) {
    for finding in findings.iter_mut().filter(|finding| !finding.repaired) {
        match put_right(shared, &finding.repair).await {
            Ok(repaired) => finding.repaired = repaired,
            Err(error) => {
                finding.problem.push_str(&format!("; the repair failed: {}", error.report()));
            }
        }
    }
}

async fn look(shared: &Arc<Shared>) -> Result<CheckReport> {
    let existing = Existing::list(shared).await?;
    let records = shared.metadata.containers()?;
    let mut findings = Vec::new();
    for record in records.iter().filter(|record| !record.incomplete) {
        findings.extend(of_container(shared, record, &existing).await?);
    }
    findings.extend(without_record(&records, &existing));
    let links = shared.networks.compare().await?;
    for link in links.strays {
        let problem = "belongs to no container or network";
        findings.push(Finding::new(format!("link {link}"), problem, REPAIR, Repair::Networks));
    }
    for bridge in links.missing_bridges {
        findings.push(Finding::new(
            format!("network {bridge}"),
            "its bridge is missing",
            REPAIR,
            Repair::Networks,
        ));
    }
    let networks = shared.networks.count();
    Ok(CheckReport { containers: records.len(), networks, findings, ..CheckReport::default() })
}

/// What a container must have, and what it must not have any more.
async fn of_container(
    shared: &Arc<Shared>,
    record: &ContainerRecord,
    existing: &Existing,
) -> Result<Vec<Finding>> {
    let id = &record.id;
    let mut findings = Vec::new();
    let object = || format!("container {}", record.name);
    let Ok(handle) = shared.table.find(id) else {
        let problem = "has a record but no task";
        let remedy = "restart brigd";
        return Ok(vec![Finding::new(object(), problem, remedy, Repair::ByHand)]);
    };
    let gone = "what it wrote is lost: remove it with `brig rm --force` and make it again";
    if !existing.snapshots.contains(id) {
        findings.push(Finding::new(object(), "its snapshot is missing", gone, Repair::ByHand));
    }
    if !existing.directories.contains(id) {
        let directory = shared.config.root.join("containers").join(id);
        let problem = "its directory, with its log, is missing";
        findings.push(Finding::new(object(), problem, REPAIR, Repair::Make(directory)));
    }
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let name = mount.name.clone().unwrap_or_default();
        if !existing.volumes.contains(&name) {
            let problem = format!("its volume {name} is missing");
            let remedy = "remove the container, or make the volume again";
            findings.push(Finding::new(object(), problem, remedy, Repair::ByHand));
        }
    }
    let state = &handle.view().record.state;
    let parts = [
        ("a shim", existing.shims.contains(id)),
        ("a bundle", existing.bundles.contains(id)),
        ("runtime state", existing.runtime.contains(id)),
        ("a cgroup", existing.cgroups.contains(id)),
    ];
    let alive = state.phase.is_alive();
    for (what, there) in parts {
        if alive && !there && (what != "a cgroup" || !has_own_cgroup_parent(record)) {
            let problem = format!("runs without {what}");
            let remedy = "stop it and start it again";
            findings.push(Finding::new(object(), problem, remedy, Repair::ByHand));
        } else if !alive && there {
            let problem = format!("does not run but has {what}");
            findings.push(Finding::new(object(), problem, REPAIR, Repair::Container(id.clone())));
        }
    }
    if !alive && existing.namespaces.contains(id) {
        let problem = "does not run but has a network namespace";
        findings.push(Finding::new(object(), problem, REPAIR, Repair::Container(id.clone())));
    }
    if alive && !existing::process_exists(state.pid) {
        let problem = format!("runs, but there is no process {}", state.pid);
        let remedy = "stop it and start it again";
        findings.push(Finding::new(object(), problem, remedy, Repair::ByHand));
    }
    Ok(findings)
}

fn has_own_cgroup_parent(record: &ContainerRecord) -> bool {
    record.host_config.cgroup_parent.as_deref().is_some_and(|parent| !parent.is_empty())
}

/// What is named after a container that has no record.
fn without_record(records: &[ContainerRecord], existing: &Existing) -> Vec<Finding> {
    let known: BTreeSet<&String> = records.iter().map(|record| &record.id).collect();
    let mut findings = Vec::new();
    let of = |set: &BTreeSet<String>| -> Vec<String> {
        set.iter().filter(|id| !known.contains(id)).cloned().collect()
    };
    let running = [
        ("shim", &existing.shims),
        ("bundle", &existing.bundles),
        ("runtime state", &existing.runtime),
        ("network namespace", &existing.namespaces),
        ("cgroup", &existing.cgroups),
    ];
    let problem = "belongs to no container";
    for (what, set) in running {
        for id in of(set) {
            let object = format!("{what} {id}");
            findings.push(Finding::new(object, problem, REPAIR, Repair::Orphan(id)));
        }
    }
    for id in of(&existing.snapshots) {
        let object = format!("snapshot {id}");
        findings.push(Finding::new(object, problem, REPAIR, Repair::Snapshot(id)));
    }
    for id in of(&existing.directories) {
        let directory = existing.root.join(&id);
        let object = format!("directory {}", directory.display());
        findings.push(Finding::new(object, problem, REPAIR, Repair::Directory(directory)));
    }
    findings
}

/// Answers whether it could do anything.
async fn put_right(shared: &Arc<Shared>, repair: &Repair) -> Result<bool> {
    match repair.clone() {
        Repair::ByHand => return Ok(false),
        Repair::Container(id) => {
            shared.table.find(&id)?.ask(|reply| Request::CleanUp { reply }).await?;
        }
        Repair::Orphan(id) => remove_orphan(shared, &id).await?,
        Repair::Snapshot(id) => {
            let shared = Arc::clone(shared);
            blocking::run(move || {
                let snapshots = shared.storage.snapshots();
                snapshots.remove(&snapshot_key(&id)?)?;
                Ok(snapshots.sweep()?)
            })
            .await?;
        }
        Repair::Directory(directory) => {
            blocking::run(move || existing::remove_directory(&directory)).await?;
        }
        Repair::Make(directory) => blocking::run(move || make_directory(&directory)).await?,
        Repair::Networks => shared.networks.repair().await?,
        Repair::Unpack(manifest) => shared.images.unpack_manifest(manifest).await?,
        Repair::Layer(key) => shared.images.make_layer_again(key).await?,
        Repair::Loose => shared.images.remove_loose().await?,
    }
    Ok(true)
}

/// The snapshots of containers, by the id in their keys.
fn container_snapshots(shared: &Shared) -> BTreeSet<String> {
    let all = shared.storage.snapshots().list().into_iter();
    let containers = all.filter(|info| info.kind == SnapshotKind::Container);
    containers.map(|info| info.key.as_str().to_owned()).collect()
}
