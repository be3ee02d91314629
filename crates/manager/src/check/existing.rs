//! What exists of containers, whatever the records say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blocking;
use crate::container::{Shared, shims};
use crate::error::{Error, Result};

/// The control group hierarchies, each with containers beneath the engine's parent group.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The container ids found in each place.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// `<root>/containers`.
    pub(super) root: PathBuf,
    pub(super) directories: BTreeSet<String>,
    pub(super) bundles: BTreeSet<String>,
    pub(super) runtime: BTreeSet<String>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) snapshots: BTreeSet<String>,
    pub(super) shims: BTreeSet<String>,
    pub(super) cgroups: BTreeSet<String>,
    /// Names of volumes.
    pub(super) volumes: BTreeSet<String>,
}

impl Existing {
    pub(super) async fn list(shared: &Arc<Shared>) -> Result<Self> {
        let shims = shims::list(&shared.config).await?;
        let shims = shims.into_iter().map(|process| process.container).collect();
        let shared = Arc::clone(shared);
        blocking::run(move || {
            let (root, state) = (&shared.config.root, &shared.config.state);
            let volumes = shared.storage.volumes().list()?;
            Ok(Self {
                root: root.join("containers"),
                directories: names(&root.join("containers"))?,
                bundles: names(&state.join("containers"))?,
                runtime: names(&state.join("runtime"))?,
                namespaces: names(&state.join("netns"))?,
                snapshots: super::container_snapshots(&shared),
                cgroups: cgroups(&shared.config.cgroup_parent),
                volumes: volumes.into_iter().map(|volume| volume.name).collect(),
                shims,
            })
        })
        .await
    }
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => {
            entries.map_err(|source| Error::io(format!("list {}", directory.display()), source))?
        }
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Groups named after containers beneath `parent`, in the unified hierarchy and in those of version 1. Where systemd makes
/// the groups it also removes them, and their names are its own.
fn cgroups(parent: &str) -> BTreeSet<String> {
    let parent = parent.trim_start_matches('/');
    let root = Path::new(CGROUP_ROOT);
    let mut hierarchies = vec![root.to_owned()];
    if let Ok(entries) = std::fs::read_dir(root) {
        hierarchies.extend(entries.flatten().map(|entry| entry.path()));
    }
    let is_id = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    hierarchies
        .iter()
        .filter_map(|hierarchy| names(&hierarchy.join(parent)).ok())
        .flatten()
        .filter(|name| is_id(name))
        .collect()
}

pub(super) fn process_exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}
