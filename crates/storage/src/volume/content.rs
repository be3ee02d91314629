//! What is in a volume: as a tree to archive and to extract into, and a part of it at a place of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use brig_linux::mount;
use brig_linux::path::{Root, file_type};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Volumes;
use super::options::{VolumeMount, is_mounted};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::snapshot::is_mount_point;
use crate::tree::Tree;

impl Volumes {
    /// The files of a volume. What its options describe is mounted for the tree alone, unless a container has it mounted.
    ///
    /// # Errors
    /// `NotFound`; the system's when the filesystem cannot be mounted.
    pub fn tree(&self, name: &str) -> Result<Tree> {
        let volume = self.inspect(name)?;
        let attempt = || format!("open volume {name}");
        let root = match VolumeMount::parse(&volume.options)? {
            Some(options) if !is_mounted(&self.shared.root, name)? => {
                options.open().and_then(Root::from_fd)
            }
            _ => self.shared.root.subroot(Path::new(name).join("_data")),
        };
        root.map(Tree::of_root).attempt(attempt)
    }

    /// Opens a path inside a volume, without reading it; links lead to where they do in the volume, never out of it. The
    /// empty path is the volume's directory.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is absolute or has `..`; `NotFound`.
    pub fn open_inside(&self, name: &str, subpath: &Path) -> Result<OwnedFd> {
        self.inspect(name)?;
        check_subpath(subpath)?;
        let attempt = || format!("open {} in volume {name}", subpath.display());
        let data = self.shared.root.subroot(Path::new(name).join("_data")).attempt(attempt)?;
        data.resolve(subpath).attempt(attempt)
    }

    /// Makes a path inside a volume present at `place`, whatever is put at that path later. The place is made; it must lie
    /// where nothing is ever removed recursively, since what is there is the volume's own. Undone by [`withdraw`].
    ///
    /// # Errors
    /// As [`Volumes::open_inside`]; the system's.
    pub fn present(&self, name: &str, subpath: &Path, place: &Path) -> Result<()> {
        let opened = self.open_inside(name, subpath)?;
        let attempt = || format!("bind {} of volume {name}", subpath.display());
        // What a crash left may be of another path.
        withdraw(place)?;
        let stat = rustix::fs::fstat(&opened).attempt(attempt)?;
        if file_type(&stat) == FileType::Directory {
            rustix::fs::mkdirat(CWD, place, Mode::from_raw_mode(0o700)).attempt(attempt)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = rustix::fs::openat(CWD, place, flags, Mode::from_raw_mode(0o600));
            drop(made.attempt(attempt)?);
        }
        let source = attributes::magic_path(opened.as_fd());
        let bound = mount::bind(Path::new(&source), true).attempt(attempt)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(CWD, place, flags, Mode::empty()).attempt(attempt)?;
        mount::attach(&bound, &target).attempt(attempt)
    }
}

/// Undoes [`Volumes::present`]; nothing at the place is no error.
///
/// # Errors
/// The system's. What is mounted there is never touched.
pub fn withdraw(place: &Path) -> Result<()> {
    let attempt = || format!("unmount {}", place.display());
    let host = Root::open("/").attempt(attempt)?;
    let is_mounted = match is_mount_point(&host, place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if is_mounted {
        mount::detach(place).attempt(attempt)?;
    }
    // Neither call removes more than an empty directory or the file that the mount was on.
    match rustix::fs::unlinkat(CWD, place, AtFlags::REMOVEDIR) {
        Err(Errno::NOTDIR) => rustix::fs::unlinkat(CWD, place, AtFlags::empty()).attempt(attempt),
        Err(Errno::NOENT) => Ok(()),
        other => other.attempt(attempt),
    }
}

/// Refuses a path that does not stay inside by its own words.
pub(super) fn check_subpath(subpath: &Path) -> Result<()> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if subpath.components().all(inside) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("volume subpath {} is not a relative path within the volume", subpath.display()),
    ))
}
