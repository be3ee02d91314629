//! Safe Linux system calls for containers: paths beneath untrusted roots, mounts, namespaces, clone3, pidfds, netlink.

#![deny(unsafe_code)]

pub mod bpf;
pub mod capability;
pub mod error;
pub mod fd;
pub mod fork;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod seccomp;

pub use error::{Error, ErrorKind, Result};
