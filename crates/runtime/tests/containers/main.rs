//! Real containers, made as root from a root filesystem of busybox.

mod cgroups;
mod exec;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod security;
mod support;
mod terminal;
