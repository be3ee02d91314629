//! The processes of a container that has no cgroup of its own: made by a caller without privileges, to whom none was
//! delegated. Those in its PID namespace are its processes; where it has none of its own, init alone is known.

use std::os::unix::fs::MetadataExt as _;

/// The numbers of all processes in the PID namespace of `init`, unless that is the caller's own.
pub(super) fn of(init: i32) -> Vec<i32> {
    let namespace = |pid: &str| {
        let found = std::fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?;
        Some((found.dev(), found.ino()))
    };
    let own = namespace(&init.to_string());
    if own.is_none() || own == namespace("self") {
        return vec![init];
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut pids: Vec<i32> =
        names.filter_map(|name| name.parse().ok().filter(|_| namespace(&name) == own)).collect();
    pids.sort_unstable();
    pids
}
