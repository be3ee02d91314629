//! Mounts by descriptor: filesystems and bind mounts that are made detached, given their attributes, and then
//! attached where a descriptor points. Nothing is visible to anyone before it is complete.
//!
//! ```text
//! filesystem()  fsopen ─ fsconfig… ─ fsmount ┐
//! overlay()     the same, layer by layer     ├─▶ OwnedFd ─ set_attributes() ─▶ attach()  move_mount
//! bind()        open_tree(OPEN_TREE_CLONE)   ┘             mount_setattr       (or dropped: gone)
//! ```
//!
//! Kernel: 5.12 for attributes (mount_setattr(2)). Functions that answer [`rustix::io::Result`] are safe in a freshly cloned child.

mod overlay;

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::{Error, ErrorKind, Result};

pub use overlay::{OverlayOptions, overlay};

/// Attribute bits of mount_setattr(2) and fsmount(2).
pub mod attribute {
    /// `ro`
    pub const READ_ONLY: u64 = 0x1;
    /// `nosuid`
    pub const NO_SUID: u64 = 0x2;
    /// `nodev`
    pub const NO_DEV: u64 = 0x4;
    /// `noexec`
    pub const NO_EXEC: u64 = 0x8;
    /// The field of access time bits, which must be cleared as a whole before one is set.
    pub const ACCESS_TIME: u64 = 0x70;
    /// `relatime`, the kernel's default: no bit of the field.
    pub const RELATIME: u64 = 0x0;
    /// `noatime`
    pub const NO_ATIME: u64 = 0x10;
    /// `strictatime`
    pub const STRICT_ATIME: u64 = 0x20;
    /// `nodiratime`
    pub const NO_DIRATIME: u64 = 0x80;
    /// Map the owners through a user namespace.
    pub const ID_MAP: u64 = 0x10_0000;
    /// `nosymfollow` (Linux 5.14)
    pub const NO_SYMFOLLOW: u64 = 0x20_0000;
}

/// Propagation types of mount_setattr(2).
pub mod propagation {
    /// `private`
    pub const PRIVATE: u64 = 1 << 18;
    /// `slave`
    pub const SLAVE: u64 = 1 << 19;
    /// `shared`
    pub const SHARED: u64 = 1 << 20;
    /// `unbindable`
    pub const UNBINDABLE: u64 = 1 << 17;
}

/// What to change on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
}

impl MountAttributes {
    /// With these [`attribute`] bits set.
    #[must_use]
    pub fn set(self, bits: u64) -> Self {
        let field = if bits & attribute::ACCESS_TIME != 0 { attribute::ACCESS_TIME } else { 0 };
        let set = (self.set & !field) | bits;
        Self { set, clear: (self.clear & !bits) | field, ..self }
    }

    /// With these [`attribute`] bits cleared.
    #[must_use]
    pub fn clear(self, bits: u64) -> Self {
        Self { set: self.set & !bits, clear: self.clear | bits, ..self }
    }

    /// With this [`propagation`] type.
    #[must_use]
    pub fn propagation(self, kind: u64) -> Self {
        Self { propagation: kind, ..self }
    }

    /// The bits that will be set.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.set
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The structure of mount_setattr(2).
    const fn to_kernel(self) -> libc::mount_attr {
        libc::mount_attr {
            attr_set: self.set,
            attr_clr: self.clear,
            propagation: self.propagation,
            userns_fd: 0,
        }
    }
}

/// Changes the attributes of the mount (with `recursive`: and of all below it) whose root `mount` is. Child-safe.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes(
    mount: impl AsFd,
    attributes: &MountAttributes,
    recursive: bool,
) -> rustix::io::Result<()> {
    let wanted = attributes.to_kernel();
    mount_setattr(mount.as_fd(), c"", &wanted, recursive)
}

/// Maps the owners on a detached mount through the user namespace `user`. Child-safe.
///
/// # Errors
/// `EINVAL` where the filesystem cannot (mount_setattr(2)).
pub fn set_id_map(
    mount: impl AsFd,
    user: BorrowedFd<'_>,
    recursive: bool,
) -> rustix::io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attribute::ID_MAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(user.as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    mount_setattr(mount.as_fd(), c"", &wanted, recursive)
}

/// Changes the attributes of the mount at `path`, a path of the host. Child-safe.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes_at(
    path: &CStr,
    attributes: &MountAttributes,
    recursive: bool,
) -> rustix::io::Result<()> {
    let wanted = attributes.to_kernel();
    mount_setattr(CWD, path, &wanted, recursive)
}

#[expect(unsafe_code, reason = "mount_setattr is in neither rustix nor nix")]
fn mount_setattr(
    fd: BorrowedFd<'_>,
    path: &CStr,
    wanted: &libc::mount_attr,
    recursive: bool,
) -> rustix::io::Result<()> {
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let flags = empty | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads the path and `size_of` bytes of the structure, both borrowed for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(wanted),
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(crate::fd::last_errno()) }
}

const AT_RECURSIVE: i32 = 0x8000;

/// A detached copy of the mount tree at `path`, relative to `directory` (an empty path means `directory` itself).
/// Links in the path are followed. Child-safe.
///
/// # Errors
/// As open_tree(2).
pub fn clone_tree(
    directory: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(directory, path, flags)
}

/// A detached bind mount of `source`, a path of the host; `recursive` takes the mounts below along.
///
/// # Errors
/// `NotFound`, `Denied`.
pub fn bind(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let attempt = || format!("bind {}", source.display());
    let path = std::ffi::CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::new(ErrorKind::InvalidInput, attempt()))?;
    clone_tree(CWD, &path, recursive).map_err(|errno| Error::system(attempt(), errno))
}

/// As [`bind`], of `source` itself when it is a symbolic link.
///
/// # Errors
/// As [`bind`].
pub fn bind_nofollow(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let attempt = || format!("bind {}", source.display());
    let path = std::ffi::CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::new(ErrorKind::InvalidInput, attempt()))?;
    let flags =
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat(CWD, &path, flags, rustix::fs::Mode::empty())
        .and_then(|fd| clone_tree(fd.as_fd(), c"", recursive))
        .map_err(|errno| Error::system(attempt(), errno))
}

/// A detached bind mount of what `source` points to.
///
/// # Errors
/// `Denied`.
pub fn bind_fd(source: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    clone_tree(source.as_fd(), c"", recursive)
        .map_err(|errno| Error::system("bind a descriptor", errno))
}

/// A detached mount of a new instance of a filesystem. Each option is a key with or without value, as in
/// mount(8)'s `-o`, without the flags that belong to the mount (`ro`, `nosuid`, ...), which are [`attribute`] bits.
///
/// # Errors
/// `InvalidInput` with the kernel's words when it rejects an option; `Unsupported` for an unknown filesystem.
pub fn filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: u64,
) -> Result<OwnedFd> {
    let attempt = || format!("mount {kind:?} filesystem");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let kind = if errno == Errno::NODEV { ErrorKind::Unsupported } else { ErrorKind::Io };
        match kind {
            ErrorKind::Unsupported => {
                Error::new(kind, format!("{} (unknown to this kernel)", attempt()))
            }
            _ => Error::system(attempt(), errno),
        }
    })?;
    let failed = |errno: Errno| {
        let words = kernel_words(&context);
        Error::system(
            if words.is_empty() { attempt() } else { format!("{} ({words})", attempt()) },
            errno,
        )
    };
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value),
            None => rustix::mount::fsconfig_set_flag(&context, *key),
        }
        .map_err(failed)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(attributes))
        .map_err(failed)
}

/// The [`attribute`] bits as fsmount(2) takes them.
#[must_use]
pub fn attribute_flags(bits: u64) -> MountAttrFlags {
    // All attribute bits are below 2^22.
    MountAttrFlags::from_bits_retain(u32::try_from(bits).unwrap_or(0))
}

/// What the kernel says about the last failure on a filesystem context, empty when it says nothing.
#[must_use]
pub fn kernel_words(context: impl AsFd) -> String {
    let mut words = String::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(&context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        // Each message starts with its class: "e " error, "w " warning, "i " information.
        let line = line.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start();
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(line);
    }
    words
}

/// Attaches a detached mount at what `target` points to (an `O_PATH` descriptor). Child-safe.
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// Attaches a detached mount at a path of the host.
///
/// # Errors
/// As move_mount(2).
pub fn attach_at(mount: impl AsFd, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", CWD, path, flags)
        .map_err(|errno| Error::system(format!("attach a mount at {}", path.display()), errno))
}

/// Detaches the mount at a path of the host, lazily; the last name is not followed when it is a link.
///
/// # Errors
/// `InvalidInput` when it is no mount point.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|errno| Error::system(format!("detach the mount at {}", path.display()), errno))
}

#[cfg(test)]
mod tests;
