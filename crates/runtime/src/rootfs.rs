//! The root filesystem: what is mounted where, and how init makes it its root.
//!
//! Bind mounts and the root itself are detached trees, with their attributes before anyone sees them: the caller opens
//! them before init exists, or init does where the caller may not ([`tree`]), and init attaches them. Filesystems that belong to a namespace (proc, sysfs, mqueue, devpts, cgroup) and
//! tmpfs are made by init, inside its namespaces. Everything is attached, and every mask and device made, *before*
//! pivot_root, on targets resolved beneath the root's descriptor, so that a link in the image or a racing neighbour
//! leads nowhere else.

pub(crate) mod apply;
mod copy_up;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod target;
pub(crate) mod tree;

use std::ffi::CString;

use brig_linux::mount::MountAttributes;

use self::tree::Tree;

/// Everything init does to its root filesystem.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    /// The directory of the host where the root is attached in init's mount namespace.
    pub(crate) path: CString,
    pub(crate) tree: Tree,
    pub(crate) steps: Vec<RootfsStep>,
    /// Device nodes, in order; empty when `/dev` is bind-mounted.
    pub(crate) devices: Vec<devices::DevicePlan>,
    /// Links in `/dev`: target and path.
    pub(crate) links: Vec<(CString, CString)>,
    pub(crate) masked: Vec<CString>,
    pub(crate) read_only: Vec<CString>,
    pub(crate) sysctls: Vec<Sysctl>,
    /// The propagation of the root mount at the end: type and whether recursively.
    pub(crate) propagation: Option<(u64, bool)>,
    pub(crate) read_only_root: bool,
    pub(crate) no_pivot: bool,
}

/// One mount, or a change of one.
#[derive(Debug)]
pub(crate) struct RootfsStep {
    pub(crate) action: Action,
    /// Relative to the root, without a leading slash; empty for the root itself.
    pub(crate) target: CString,
    /// Whether a target that is a link is mounted over instead of followed.
    pub(crate) target_nofollow: bool,
    /// As it stands in the configuration, for messages.
    pub(crate) label: String,
}

impl RootfsStep {
    /// Whether the step needs the container's cgroup: it shows it, or fills memory that is to count as the container's.
    pub(crate) fn in_cgroup(&self) -> bool {
        match &self.action {
            Action::Filesystem(plan) => plan.copy_up || plan.kind.to_bytes().starts_with(b"cgroup"),
            Action::Attach { tree, .. } => tree.is_late(),
            Action::Reconfigure { .. } | Action::Change { .. } | Action::Link { .. } => false,
        }
    }
}

/// What a step does at its target.
#[derive(Debug)]
pub(crate) enum Action {
    /// Attach a tree.
    Attach { tree: Tree, propagation: Vec<(u64, bool)> },
    /// Make a filesystem and attach it.
    Filesystem(FilesystemPlan),
    /// Change the filesystem that is mounted there.
    Reconfigure { options: Vec<(CString, Option<CString>)> },
    /// Change the mount that is there.
    Change { attributes: MountAttributes, recursive: bool },
    /// Make a symbolic link; with `exact`, one that is there must be the same.
    Link { to: CString, exact: bool },
}

/// A filesystem that init makes.
#[derive(Debug)]
pub(crate) struct FilesystemPlan {
    pub(crate) kind: CString,
    pub(crate) options: Vec<(CString, Option<CString>)>,
    /// [`brig_linux::mount::attribute`] bits.
    pub(crate) attributes: u64,
    pub(crate) propagation: Vec<(u64, bool)>,
    /// Start with what is at the target.
    pub(crate) copy_up: bool,
    /// A tmpfs takes on the mode of the directory that it covers, where the configuration says none.
    pub(crate) keep_mode: bool,
    /// Keep its descriptor for sysctls and labels.
    pub(crate) is_proc: bool,
}

/// A kernel parameter.
#[derive(Debug)]
pub(crate) struct Sysctl {
    /// Relative to `/proc`.
    pub(crate) path: CString,
    pub(crate) value: Vec<u8>,
}

impl RootfsStep {
    /// The tree that the step attaches, if it does.
    pub(crate) fn tree(&self) -> Option<&Tree> {
        match &self.action {
            Action::Attach { tree, .. } => Some(tree),
            _ => None,
        }
    }
}
