//! Removing a cgroup and what the container made below it.

use std::ffi::OsStr;
use std::thread;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::failure::{self, Result, errno};
use super::hierarchy::Place;
use super::processes;

/// How long dying processes may keep a cgroup busy. Memory of a large killed process is freed in this time.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Removes the cgroup at `place`, leaves first. The directories above it stay: others may be about to use them.
pub(super) fn remove(place: &Place) -> Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let (Some(above), Some(name)) = (place.relative.parent(), place.relative.file_name()) else {
        return Ok(());
    };
    let parent = match Directory::open_below(&place.mount, above) {
        Ok(parent) => parent,
        Err(error) if errno(&error) == Some(libc::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    remove_tree(&parent, name, deadline)
}

fn remove_tree(parent: &Directory, name: &OsStr, deadline: Instant) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match parent.remove_child(name) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match errno(&error) {
            Some(libc::ENOENT) => return Ok(()),
            Some(libc::EBUSY | libc::ENOTEMPTY) => {}
            _ => return Err(error),
        }
        let cgroup = match parent.child(name) {
            Ok(cgroup) => cgroup,
            Err(error) if errno(&error) == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        for child in cgroup.children()? {
            remove_tree(&cgroup, &child, deadline)?;
        }
        if Instant::now() >= deadline {
            return Err(error);
        }
        wait_idle(&cgroup, deadline, pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for the last process by event on v2. v1 tells nothing, and both may stay busy for a moment after the last task
/// has gone, so a growing pause bounds the number of attempts.
fn wait_idle(cgroup: &Directory, deadline: Instant, pause: Duration) -> Result<()> {
    if cgroup.has("cgroup.events") {
        match processes::wait_event(cgroup, "populated", 0, deadline) {
            Ok(true) => {}
            Ok(false) => return Err(failure::occupied(cgroup.path())),
            Err(error) => return Err(error),
        }
    }
    thread::sleep(pause);
    Ok(())
}
