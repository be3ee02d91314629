//! Resource usage as containerd's clients expect it in `StatsResponse`, for both versions of cgroups.

pub mod v1;
pub mod v2;
