//! The long check: every byte of content hashed again, layers compared with what images need, and healed.
//!
//! Content is healed first, since layers are made of it; a blob that is damaged is replaced by the same bytes fetched
//! again, never only removed. A layer that was unpacked from a blob was verified then, and stays as it is when the blob
//! gets damaged later.

use std::sync::Arc;

use brig_images::{Fault, Hashed};
use brig_storage::{SnapshotFault, SnapshotKind};
use tokio::sync::mpsc;

use super::{CheckReport, Finding, REPAIR, Repair, confirmed, put_all_right};
use crate::blocking;
use crate::container::Shared;
use crate::error::Result;
use crate::image::{Follow, part_of};

/// What to do about content that no registry gives.
const BY_HAND: &str = "load the image again from its archive with `brig load`, pull it from where it came from, or remove it \
                       with `brig rmi`";
/// What to do about files that are not ours.
const STRANGER: &str = "it is not the engine's: move it away";

/// What a long check tells while it runs.
#[derive(Debug, Clone)]
pub enum CheckNews {
    /// How far something is.
    Progress {
        /// What goes on.
        status: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The end.
    Report(CheckReport),
}

/// Checks records, content and layers. Progress goes to `news`; a check that repairs nothing ends when nobody listens any
/// more.
pub(crate) async fn check_content(
    shared: &Arc<Shared>,
    repair: bool,
    news: mpsc::Sender<Result<CheckNews>>,
) -> Result<CheckReport> {
    let mut report = confirmed(shared).await?;
    let follow: Follow = Arc::new(move |status, done, total| {
        let status = status.to_owned();
        // A listener that is slow misses some of it.
        let _ = news.try_send(Ok(CheckNews::Progress { status, done, total }));
        repair || !news.is_closed()
    });
    let hashed = shared.images.hash_content(Arc::clone(&follow)).await?;
    (report.blobs, report.bytes) = (hashed.blobs, hashed.bytes);
    report.images = shared.images.count().await?;
    of_content(shared, hashed, repair.then_some(&follow), &mut report.findings).await?;
    of_layers(shared, &mut report.findings).await?;
    if repair {
        put_all_right(shared, &mut report.findings).await;
    }
    Ok(report)
}

async fn of_content(
    shared: &Arc<Shared>,
    hashed: Hashed,
    heal: Option<&Follow>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let (unknown, unfinished) = (hashed.unknown.clone(), hashed.unfinished.clone());
    let (hashed, healed, unhealed) = match heal {
        Some(follow) => shared.images.heal_content(hashed, follow).await?,
        None => (hashed, Vec::new(), Default::default()),
    };
    for fault in &healed {
        let finding = describe(fault, "fetched again");
        findings.push(Finding { repaired: true, ..finding });
    }
    let compared = shared.images.compare_content(Arc::new(hashed)).await?;
    for fault in &compared.faults {
        let can = if fault.references.is_empty() { BY_HAND } else { REPAIR };
        findings.push(match unhealed.get(&fault.target.digest) {
            None => describe(fault, can),
            Some(why) => {
                let mut finding = describe(fault, BY_HAND);
                finding.problem.push_str(&format!("; it cannot be healed: {why}"));
                finding
            }
        });
    }
    for path in unknown {
        let object = format!("file {}", path.display());
        findings.push(Finding::new(object, "is no content", STRANGER, Repair::ByHand));
    }
    for (path, size) in unfinished.into_iter().filter(|(_, size)| *size > 0) {
        let object = format!("transfer {}", path.display());
        let problem = format!("is not finished; {size} bytes are here");
        let remedy =
            "the next one goes on with it; after a day it is removed with what nothing needs";
        findings.push(Finding::new(object, problem, remedy, Repair::ByHand).harmless());
    }
    if !compared.unreferenced.is_empty() {
        let count = compared.unreferenced.len();
        let bytes: u64 = compared.unreferenced.iter().map(|(_, size)| size).sum();
        let object = format!("content of {count} blobs with {bytes} bytes");
        let finding = Finding::new(object, "is needed by nothing", REPAIR, Repair::Loose);
        findings.push(finding.harmless());
    }
    Ok(())
}

fn describe(fault: &Fault, remedy: &str) -> Finding {
    let object = match fault.owners.as_slice() {
        [owner] if owner.starts_with("container ") => owner.clone(),
        owners => format!("image {}", owners.join(", ")),
    };
    let problem =
        format!("its {} {} {}", part_of(&fault.target), fault.target.digest, fault.problem);
    Finding::new(object, problem, remedy, Repair::ByHand)
}

async fn of_layers(shared: &Arc<Shared>, findings: &mut Vec<Finding>) -> Result<()> {
    let storage = Arc::clone(&shared.storage);
    for fault in blocking::run(move || Ok(storage.snapshots().check()?)).await? {
        findings.push(match fault {
            SnapshotFault::WithoutFiles { key, kind: SnapshotKind::Layer } => {
                let key = key.as_str().to_owned();
                let object = format!("layer {key}");
                Finding::new(object, "has lost its files", REPAIR, Repair::Layer(key))
            }
            SnapshotFault::WithoutFiles { key, .. } => {
                let remedy =
                    "what it wrote is lost: remove it with `brig rm --force` and make it again";
                let object = format!("container {key}");
                Finding::new(object, "has lost its files", remedy, Repair::ByHand)
            }
            SnapshotFault::Unreadable(path) => {
                let remedy = "nothing can use it: stop brigd and remove it";
                let object = format!("snapshot {}", path.display());
                Finding::new(object, "its record cannot be read", remedy, Repair::ByHand)
            }
            SnapshotFault::Unknown(path) => {
                let object = format!("file {}", path.display());
                Finding::new(object, "is no snapshot", STRANGER, Repair::ByHand)
            }
            other => {
                let object = format!("snapshot {other:?}");
                Finding::new(object, "is not as it should be", STRANGER, Repair::ByHand)
            }
        });
    }
    for (image, manifest) in shared.images.without_layers().await? {
        let object = format!("image {image}");
        let problem = "is not unpacked whole; the next container of it would do that";
        findings.push(Finding::new(object, problem, REPAIR, Repair::Unpack(manifest)).harmless());
    }
    // An image that cannot be read says nothing about the layers it needs.
    let readable = findings.iter().all(|finding| finding.repaired || !finding.is_of_image());
    let loose = shared.images.loose_layers().await?;
    if readable && !loose.is_empty() {
        let object = format!("layers {}", loose.join(", "));
        let finding = Finding::new(object, "are needed by nothing", REPAIR, Repair::Loose);
        findings.push(finding.harmless());
    }
    Ok(())
}

impl Finding {
    fn is_of_image(&self) -> bool {
        self.object.starts_with("image ") && !self.harmless
    }
}
