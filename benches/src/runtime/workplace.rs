//! A mount namespace of the benchmark's own, with a tmpfs to work in.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tempfile::TempDir;

use super::hierarchies::ROOT;

/// A directory with a tmpfs over it, which goes with this value.
#[derive(Debug)]
pub(super) struct Workplace {
    directory: TempDir,
}

impl Workplace {
    /// Leaves the host's mount namespace; threads that are started later are in the new one, too.
    pub(super) fn make() -> Result<Self> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).context("make its mounts private")?;
        let directory = tempfile::Builder::new().prefix("brig-bench-runtime-").tempdir()?;
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), None)
            .context("mount a tmpfs")?;
        Ok(Self { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes `/sys/fs/cgroup` the cgroup2 hierarchy, as it is on a host that mounts no other.
    pub(super) fn mount_unified_alone(&self) -> Result<()> {
        // With what is mounted beneath it.
        rustix::mount::unmount(ROOT, UnmountFlags::DETACH).context("unmount the hierarchies")?;
        rustix::mount::mount("none", ROOT, "cgroup2", MountFlags::empty(), None)
            .context("mount cgroup2")
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Before the directory is removed.
        let _ = rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}
