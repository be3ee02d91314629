//! OCI runtime as a library: create, start, exec, kill and delete containers from a bundle.

#![deny(unsafe_code)]

pub mod cgroup;
pub mod container;
pub mod error;
pub mod security;

pub use container::{
    Console, Container, ContainerId, ContainerState, CreateOptions, Created, Exec, ExecOptions,
    KillScope, RootfsMount, Runtime, Status, Stdio,
};
pub use error::{Error, ErrorKind, Result};
