//! Named points at which a test makes a program die, fail or wait.
//!
//! [`hit`] stands where a crash or an error would hurt most: after an intent is written, a namespace made, a process
//! cloned. Without the feature `enabled` it is an empty function that the compiler removes. With it, a program that was
//! given a directory by `configure` looks there at each point:
//!
//! ```text
//! <directory>/armed   one line, `NAME ACTION`: what to do at which point. Taken away by whoever reaches it, so that
//!                     each arming acts once.
//! <directory>/hits    a line for every arming that acted
//! ```
//!
//! Actions: `kill` (this process), `kill-parent` (its parent, then itself: a forked helper takes its program along),
//! `enospc` and `eio` (the point returns that error), `delay MILLISECONDS`.
//!
//! The file is looked at anew each time, so that a test arms a point of a program that runs already.

#![forbid(unsafe_code)]

use std::io;

/// Looks for the armings in `directory` from now on. The first call counts.
#[cfg(feature = "enabled")]
pub fn configure(directory: std::path::PathBuf) {
    // A second directory would belong to a test that cannot be meant.
    let _kept = armed::DIRECTORY.set(directory);
}

/// A point called `name`.
///
/// # Errors
/// Only what a test armed: `ENOSPC` or `EIO`.
#[inline]
pub fn hit(name: &str) -> io::Result<()> {
    #[cfg(feature = "enabled")]
    armed::hit(name)?;
    let _unused = name;
    Ok(())
}

#[cfg(feature = "enabled")]
mod armed {
    use std::fs;
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, getppid, kill_process};

    pub(super) static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

    pub(super) fn hit(name: &str) -> io::Result<()> {
        match DIRECTORY.get() {
            Some(directory) => hit_in(directory, name),
            None => Ok(()),
        }
    }

    pub(super) fn hit_in(directory: &Path, name: &str) -> io::Result<()> {
        let armed = directory.join("armed");
        let Ok(line) = fs::read_to_string(&armed) else { return Ok(()) };
        let Some((point, action)) = line.trim().split_once(' ') else { return Ok(()) };
        // Whoever takes the file away is the one that acts.
        if point != name || fs::remove_file(&armed).is_err() {
            return Ok(());
        }
        let mut hits =
            fs::OpenOptions::new().create(true).append(true).open(directory.join("hits"))?;
        writeln!(hits, "{name} {action}")?;
        act(action)
    }

    fn act(action: &str) -> io::Result<()> {
        let (verb, number) = action.split_once(' ').unwrap_or((action, ""));
        match verb {
            "kill" => kill_process(getpid(), Signal::KILL).map_err(Into::into),
            "kill-parent" => {
                if let Some(parent) = getppid() {
                    kill_process(parent, Signal::KILL)?;
                }
                kill_process(getpid(), Signal::KILL).map_err(Into::into)
            }
            "enospc" => Err(Errno::NOSPC.into()),
            "eio" => Err(Errno::IO.into()),
            "delay" => {
                std::thread::sleep(Duration::from_millis(number.parse().unwrap_or(0)));
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("action {action:?}"))),
        }
    }
}

#[cfg(all(test, feature = "enabled"))]
mod tests {
    use super::armed::hit_in;

    #[test]
    fn a_point_acts_once_when_its_name_is_armed() {
        let directory = tempfile::tempdir().unwrap();
        let arm = |text: &str| std::fs::write(directory.path().join("armed"), text).unwrap();
        hit_in(directory.path(), "one").unwrap();
        arm("one enospc\n");
        hit_in(directory.path(), "two").unwrap();
        let error = hit_in(directory.path(), "one").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
        hit_in(directory.path(), "one").unwrap();
        let hits = std::fs::read_to_string(directory.path().join("hits")).unwrap();
        assert_eq!(hits, "one enospc\n");
    }

    #[test]
    fn an_action_that_nobody_knows_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("armed"), "one explode").unwrap();
        assert!(hit_in(directory.path(), "one").is_err());
    }
}
