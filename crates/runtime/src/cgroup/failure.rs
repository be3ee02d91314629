//! The crate's error, said in cgroup terms: the step, the file and the value, with the kernel's errno as source.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

pub(super) use crate::error::Result;

/// The errno of a failed system call.
pub(super) fn errno(error: &Error) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

/// Neither a v1 nor a v2 hierarchy is mounted.
pub(super) fn no_hierarchy() -> Error {
    Error::new(ErrorKind::Unsupported, "find a cgroup hierarchy: none is mounted")
        .with_advice("mount cgroup2 on /sys/fs/cgroup")
}

/// A file or directory operation: the verb and its object.
pub(super) fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::system(format!("{action} {}", path.display()), source)
}

/// A value the kernel did not accept.
pub(super) fn write(path: &Path, value: &str, source: impl Into<io::Error>) -> Error {
    Error::system(format!("write `{value}` to {}", path.display()), source)
}

/// A limit was asked for whose controller this cgroup does not have.
pub(super) fn controller(field: &'static str, controller: &'static str) -> Error {
    let attempt = format!("set {field}: the {controller} controller is not available here");
    Error::new(ErrorKind::Unsupported, attempt)
        .with_advice("mount it, or enable it in cgroup.subtree_control of the parent cgroup")
}

/// The kernel or this hierarchy has no such knob.
pub(super) fn unsupported(field: impl Display, why: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("set {field}: {why}"))
}

/// The request contradicts itself or the specification.
pub(super) fn invalid(field: impl Display, value: impl Display, why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("set {field} to `{value}`: {why}"))
}

/// A cgroup that the container was to have made.
pub(super) fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("use cgroup {}: it does not exist", path.display()))
}

/// Processes of someone else live where the container should.
pub(super) fn occupied(path: &Path) -> Error {
    let attempt = format!("use cgroup {}: processes live in it", path.display());
    Error::new(ErrorKind::Conflict, attempt)
        .with_advice("choose another linux.cgroupsPath, or end them")
}

/// The kernel did not reach a state in time.
pub(super) fn timeout(action: &'static str, path: &Path, after: Duration) -> Error {
    let attempt = format!("{action} {}: not done after {} s", path.display(), after.as_secs());
    Error::new(ErrorKind::Exhausted, attempt)
        .with_advice("look for a task in uninterruptible sleep, and try again")
}
