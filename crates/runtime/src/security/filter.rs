//! The seccomp filter of a process, compiled before the process exists.

use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, ErrorKind, Result};

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter;

/// Compiles a filter.
pub(crate) fn prepare(_seccomp: &LinuxSeccomp) -> Result<Filter> {
    Err(Error::new(ErrorKind::Unsupported, "linux.seccomp is not built yet"))
}

impl Filter {
    /// Installs the filter on this thread. Child-safe.
    pub(crate) fn install(&self) -> rustix::io::Result<()> {
        Err(rustix::io::Errno::NOSYS)
    }
}
