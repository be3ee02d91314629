//! CRIU, the program that saves process trees to files and makes them again (criu.org).
//!
//! It is started as `criu swrk`, serves one request over a socket, and calls back at points of its work ([`program`]). Its
//! images say everything about the processes that they hold, privileges included, and whoever hands them over may have
//! written them. So nothing that they say is taken for granted (CVE-2024-8676): the cgroup, its limits and devices, the
//! cgroup namespace, the root filesystem and the sources of bind mounts are made from the configuration before CRIU runs,
//! the files are looked through before it reads them ([`images`]), and before any restored process runs an instruction of its
//! own, what the kernel says of it is compared with the configuration ([`inspect`]).

pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod mount_table;
pub(crate) mod program;
pub(crate) mod rpc;
