//! What limits a process beyond its namespaces: capabilities, seccomp, labels, resource limits.

pub(crate) mod capabilities;
pub(crate) mod lsm;
pub(crate) mod placement;
pub(crate) mod rlimits;
pub(crate) mod scheduling;
pub mod seccomp;
