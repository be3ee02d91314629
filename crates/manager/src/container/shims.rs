//! The shim processes of this engine, found among all processes by their command lines.
//!
//! Needed only where nobody can be asked: after a crash, and by the check of the whole engine. A shim and the `start`
//! command that makes it have the same command line, which names the bundle.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::blocking;
use crate::config::Config;
use crate::error::{Error, Result};

/// How long a shim that was killed or told to end may take to be gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A shim, or a command about to become one.
#[derive(Debug)]
pub(crate) struct ShimProcess {
    pub(crate) pid: i32,
    /// The container it was started for.
    pub(crate) container: String,
    process: OwnedFd,
}

impl ShimProcess {
    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(self) -> Result<()> {
        let what = || format!("kill shim {} of container {}", self.pid, self.container);
        match rustix::process::pidfd_send_signal(&self.process, Signal::KILL) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(errno) => return Err(Error::io(what(), errno.into())),
        }
        let process = self.process.try_clone().ok().and_then(watch);
        let ended = tokio::time::timeout(PATIENCE, ended(process.as_ref())).await;
        ended.map_err(|_| Error::conflict(format!("{}: it does not end", what())))
    }
}

/// Watches a process by its descriptor, of which it needs no second one; `None` if it cannot be watched.
pub(crate) fn watch(process: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that asks for")]
    AsyncFd::with_interest(process, Interest::READABLE).ok()
}

/// Resolves when a process that is watched has ended; never if it is not watched.
pub(crate) async fn ended(process: Option<&AsyncFd<OwnedFd>>) {
    if let Some(process) = process
        && process.readable().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// All shims of the engine that `config` describes.
pub(crate) async fn list(config: &Config) -> Result<Vec<ShimProcess>> {
    let bundles = config.state.join("containers");
    let program = config.shim.file_name().unwrap_or_default().to_owned();
    blocking::run(move || {
        let entries = std::fs::read_dir("/proc")
            .map_err(|source| Error::io("list processes in /proc", source))?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(|pid| look(pid, &program, &bundles)).collect())
    })
    .await
}

fn look(pid: i32, program: &std::ffi::OsStr, bundles: &Path) -> Option<ShimProcess> {
    container_of(pid, program, bundles)?;
    // Opened first, looked at second: what the command line says then is about the process that is open.
    let process = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let container = container_of(pid, program, bundles)?;
    Some(ShimProcess { pid, container, process })
}

fn container_of(pid: i32, program: &std::ffi::OsStr, bundles: &Path) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    parse(&line, program, bundles)
}

/// The container in a shim's command line: the last part of the path after `-bundle`.
fn parse(line: &[u8], program: &std::ffi::OsStr, bundles: &Path) -> Option<String> {
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    if Path::new(words.first()?).file_name() != Some(program) {
        return None;
    }
    let at = words.iter().position(|word| *word == "-bundle")?;
    let bundle = PathBuf::from(words.get(at + 1)?);
    if bundle.parent() != Some(bundles) {
        return None;
    }
    Some(bundle.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_shim_is_known_by_program_and_bundle() {
        let parse = |words: &[&str]| {
            parse(words.join("\0").as_bytes(), OsStr::new("shim"), Path::new("/s/containers"))
        };
        let shim = ["/usr/bin/shim", "-id", "a1", "-bundle", "/s/containers/a1", "start", ""];
        assert_eq!(parse(&shim).as_deref(), Some("a1"));
        let of_another_engine = ["/usr/bin/shim", "-bundle", "/other/containers/a1", "start"];
        assert_eq!(parse(&of_another_engine), None);
        let another_program = ["strace", "-bundle", "/s/containers/a1"];
        assert_eq!(parse(&another_program), None);
        assert_eq!(parse(&[""]), None);
    }
}
