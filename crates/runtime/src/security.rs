//! What limits a process beyond its namespaces: capabilities, seccomp, labels, resource limits.

pub mod seccomp;
