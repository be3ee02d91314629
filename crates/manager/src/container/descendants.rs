//! Ending a process with all that it started, by the kernel's account of parents and children.
//!
//! A child whose parent has ended before belongs to the container's first process and is not found any more: that is how a
//! process says that it is to outlive its parent.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Looks again as long as a look finds something new, since what ran may have started more; but not for ever.
const LOOKS_MAX: usize = 64;

/// Kills a process and its descendants. Each is stopped as it is found, so that none starts another meanwhile, and all
/// are killed when no more are found. Blocks.
pub(super) fn kill(pid: u32) {
    let mut held: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    for _ in 0..LOOKS_MAX {
        let found = std::iter::once(pid).chain(of(pid));
        let new: Vec<u32> = found.filter(|pid| !held.contains_key(pid)).collect();
        if new.is_empty() {
            break;
        }
        for process in new {
            let raw = i32::try_from(process).ok().and_then(Pid::from_raw);
            let Some(Ok(descriptor)) = raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) else {
                continue;
            };
            // The number may have become another's between the look and the opening.
            if process == pid || of(pid).contains(&process) {
                let _gone = pidfd_send_signal(&descriptor, Signal::STOP);
                held.insert(process, descriptor);
            }
        }
    }
    for descriptor in held.values() {
        let _gone = pidfd_send_signal(descriptor, Signal::KILL);
    }
}

/// The descendants that run, parents before children.
fn of(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        let path = format!("/proc/{parent}/task");
        for task in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = text.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            let children: Vec<u32> = children.filter(|child| !is_zombie(*child)).collect();
            found.extend(&children);
            next.extend(children);
        }
    }
    found
}

/// It has ended and waits to be reaped, which is its parent's affair.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_with_its_descendants() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sh -c 'sleep 1000 & sleep 1000 & wait' & sleep 1000 & wait"]);
        let mut child = command.spawn().expect("start sh");
        // Three sleeps and their shell.
        while of(child.id()).len() < 4 {
            std::thread::yield_now();
        }
        let all = of(child.id());
        kill(child.id());
        child.wait().expect("its end");
        while all.iter().any(|process| !is_zombie(*process)) {
            std::thread::yield_now();
        }
    }
}
