//! Safe Linux system calls for containers: paths beneath untrusted roots, mounts, namespaces, clone3, pidfds, netlink.

pub mod error;
pub mod path;

pub use error::{Error, ErrorKind, Result};
