//! Trees of mounts that are opened detached, changed while nobody sees them, and attached where they are wanted.
//!
//! The caller opens them before init exists, with its own rights. A caller that may not mount in its own mount namespace
//! leaves that to init, which may in the copy that is its own: before it becomes root of its user namespace, and so with
//! the caller's access to files still. The kernel takes no descriptor of another mount namespace for a source, so what
//! is left to init is a path, which means the same to both.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use brig_linux::mount::{MountAttributes, clone_tree, set_attributes, set_id_map};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// One tree; see the module.
#[derive(Debug)]
pub(crate) struct Tree {
    source: CString,
    recursive: bool,
    nofollow: bool,
    /// In order; each for the top alone or for all mounts of the tree.
    changes: Vec<(MountAttributes, bool)>,
    /// The user namespace by which owners are mapped, and whether in all mounts.
    id_map: Option<(OwnedFd, bool)>,
    /// Only opened where it is attached: it does not exist before init does.
    late: bool,
    opened: OnceCell<OwnedFd>,
}

/// What could not be done with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Find,
    Change,
    MapOwners,
}

impl Tree {
    /// What is at `source`, a path of the host; `recursive` with the mounts below.
    pub(crate) fn new(source: CString, recursive: bool) -> Self {
        Self {
            source,
            recursive,
            nofollow: false,
            changes: Vec::new(),
            id_map: None,
            late: false,
            opened: OnceCell::new(),
        }
    }

    /// One that is open already, with what it is made of for messages.
    pub(crate) fn opened(tree: OwnedFd, source: CString) -> Self {
        Self { opened: OnceCell::from(tree), ..Self::new(source, false) }
    }

    /// Whether it does not exist before init is in its cgroups.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// A source that is a link is meant itself.
    pub(crate) fn nofollow(self, nofollow: bool) -> Self {
        Self { nofollow, ..self }
    }

    /// Opened only where it is attached.
    pub(crate) fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// With another change, after those before.
    pub(crate) fn changed(mut self, attributes: MountAttributes, recursive: bool) -> Self {
        if !attributes.is_empty() {
            self.changes.push((attributes, recursive));
        }
        self
    }

    /// With owners mapped by a user namespace.
    pub(crate) fn mapped(self, namespace: OwnedFd, recursive: bool) -> Self {
        Self { id_map: Some((namespace, recursive)), ..self }
    }

    /// Opens it on the caller's side.
    ///
    /// # Errors
    /// Names the source and what could not be done with it.
    pub(crate) fn open(&self) -> Result<()> {
        if self.late {
            return Ok(());
        }
        self.prepare().map(drop).map_err(|(part, errno)| {
            let source = self.source.to_string_lossy();
            match part {
                Part::Find => Error::system(format!("bind {source}"), errno),
                Part::Change => Error::system(format!("set options of {source}"), errno),
                Part::MapOwners => Error::system("map the owners of the mount", errno)
                    .with_advice("the source's filesystem must support id-mapped mounts"),
            }
        })
    }

    /// Opens it in init, unless that is done or it is too early. Child-safe.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open_early(&self) -> rustix::io::Result<()> {
        if self.late { Ok(()) } else { self.get().map(drop) }
    }

    /// The tree, which is opened if it was not. Child-safe.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn get(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.prepare().map_err(|(_, errno)| errno)
    }

    /// Its descriptor, once there is one, for what a child keeps.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.opened.get().map(|tree| tree.as_raw_fd())
    }

    /// The [`brig_linux::mount::attribute`] bits that its top gets.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn attributes(&self) -> u64 {
        self.changes.iter().fold(0, |bits, (change, _)| bits | change.bits())
    }

    /// Its source, for messages.
    pub(crate) fn source(&self) -> &CStr {
        &self.source
    }

    fn prepare(&self) -> std::result::Result<BorrowedFd<'_>, (Part, Errno)> {
        if let Some(tree) = self.opened.get() {
            return Ok(tree.as_fd());
        }
        let tree = self.find().map_err(|errno| (Part::Find, errno))?;
        for (attributes, recursive) in &self.changes {
            set_attributes(&tree, attributes, *recursive).map_err(|errno| (Part::Change, errno))?;
        }
        if let Some((namespace, recursive)) = &self.id_map {
            set_id_map(&tree, namespace.as_fd(), *recursive)
                .map_err(|errno| (Part::MapOwners, errno))?;
        }
        Ok(self.opened.get_or_init(|| tree).as_fd())
    }

    fn find(&self) -> rustix::io::Result<OwnedFd> {
        if !self.nofollow {
            return clone_tree(CWD, &self.source, self.recursive);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(CWD, &self.source, flags, Mode::empty())?;
        clone_tree(source.as_fd(), c"", self.recursive)
    }
}
