//! Loggers: processes beside the shim that read a container's output from pipes.
//!
//! ```text
//! process ─pipe─▶ shim ─pipe─▶ logger ─▶ its program's business | journald | files
//! ```
//!
//! A program follows containerd's contract: the pipes of standard output and error are its descriptors 3 and 4, it
//! closes 5 when it is ready, and the environment names the container. A log of ours runs in a forked child where the
//! shim itself must not wait for it: journald, and files whose container is never to wait for the disk.
//!
//! A logger ends with its pipes. It is not told when the shim dies, so that it reads what is left.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use brig_shim_protocol::Timestamp;
use brig_shim_protocol::attach::Stream;
use brig_shim_protocol::options::LogOptions;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

use crate::log::{CompressJob, Sink, compress};

/// The first of the descriptors that a program is given.
const FIRST: i32 = 3;

/// Out of the way of those.
const ASIDE: i32 = 64;

/// How long a program may take to say that it is ready, as in containerd.
const READY: Duration = Duration::from_secs(10);

/// What reads the output.
#[derive(Clone, Debug)]
pub(crate) enum Logger {
    /// A program.
    Program { program: PathBuf, arguments: Vec<String>, id: String, namespace: String },
    /// A log of ours, in a child.
    Log(LogOptions),
}

/// The shim's ends of a logger's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Ends when a program is ready.
    pub(crate) ready: Option<OwnedFd>,
}

impl Logger {
    /// Starts the logger.
    pub(crate) fn start(self) -> Result<Pipes, String> {
        if let Self::Program { program, .. } = &self
            && !program.is_file()
        {
            return Err(format!("start logger {}: there is no such program", program.display()));
        }
        let failed = |error: &dyn std::fmt::Display| format!("start a logger: {error}");
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(&errno));
        let (stdout, stderr, ready) = (pipe()?, pipe()?, pipe()?);
        for end in [&stdout.1, &stderr.1] {
            rustix::io::ioctl_fionbio(end, true).map_err(|errno| failed(&errno))?;
        }
        let program = matches!(self, Self::Program { .. });
        let keep = vec![stdout.0, stderr.0, ready.1];
        brig_linux::fork::fork(keep, move |ends| self.run(ends)).map_err(|error| failed(&error))?;
        let ready = Some(ready.0).filter(|_| program);
        Ok(Pipes { stdout: stdout.1, stderr: stderr.1, ready })
    }

    fn run(self, mut ends: Vec<OwnedFd>) -> i32 {
        // The shim blocks the signals that it reads from a descriptor.
        let _best_effort = SigSet::empty().thread_set_mask();
        match self {
            Self::Program { program, arguments, id, namespace } => {
                let Ok(placed) = place(ends) else { return 1 };
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .env("CONTAINER_ID", id)
                    .env("CONTAINER_NAMESPACE", namespace);
                let _failed: std::io::Error = command.exec();
                drop(placed);
                127
            }
            Self::Log(options) => {
                ends.truncate(2);
                keep_log(&options, ends)
            }
        }
    }
}

/// Moves descriptors to the numbers from [`FIRST`] on and lets a program inherit them. In a child that holds no others.
fn place(ends: Vec<OwnedFd>) -> rustix::io::Result<Vec<OwnedFd>> {
    let aside: Vec<OwnedFd> = ends
        .iter()
        .map(|end| rustix::io::fcntl_dupfd_cloexec(end, ASIDE))
        .collect::<Result<_, _>>()?;
    drop(ends);
    // Each gets the lowest free number from there.
    (FIRST..)
        .zip(&aside)
        .map(|(number, end)| {
            let placed = rustix::io::fcntl_dupfd_cloexec(end, number)?;
            rustix::io::fcntl_setfd(&placed, FdFlags::empty())?;
            Ok(placed)
        })
        .collect()
}

/// Waits until a program is ready: it closes its end, or writes to it.
pub(crate) fn wait_until_ready(ready: &OwnedFd) -> Result<(), String> {
    let timeout = Timespec { tv_sec: READY.as_secs().try_into().unwrap_or(0), tv_nsec: 0 };
    let mut polled = [PollFd::new(ready, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout))) {
        Ok(0) => Err(format!("the logger is not ready after {} seconds", READY.as_secs())),
        Ok(_) => Ok(()),
        Err(errno) => Err(format!("wait for the logger: {errno}")),
    }
}

/// Copies what a logger that is behind is still to get; runs in a child, so that nobody waits for it.
pub(crate) fn hand_over(waiting: &[u8], source: Option<OwnedFd>, logger: OwnedFd) -> i32 {
    use std::io::Write;
    let mut logger = std::fs::File::from(logger);
    let copied = rustix::io::ioctl_fionbio(&logger, false)
        .map_err(std::io::Error::from)
        .and_then(|()| logger.write_all(waiting))
        .and_then(|()| match source {
            // What the process wrote is in the pipe; its end, or that there is no more, comes after it.
            Some(source) => match std::io::copy(&mut std::fs::File::from(source), &mut logger) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            None => Ok(()),
        });
    i32::from(copied.is_err())
}

/// Writes a log until both pipes have ended.
fn keep_log(options: &LogOptions, ends: Vec<OwnedFd>) -> i32 {
    let Ok(Some(mut sink)) = Sink::open(options) else { return 1 };
    let mut sources: Vec<(Stream, std::fs::File)> = [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .zip(ends.into_iter().map(Into::into))
        .collect();
    let mut buffer = vec![0; 32 << 10];
    while !sources.is_empty() {
        let mut polled: Vec<_> =
            sources.iter().map(|(_, source)| PollFd::new(source, PollFlags::IN)).collect();
        if rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {
            return 1;
        }
        let ready: Vec<bool> = polled.iter().map(|each| !each.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        sources.retain_mut(|(stream, source)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match source.read(&mut buffer) {
                Ok(count @ 1..) => {
                    sink.write(*stream, &buffer[..count], Timestamp::now());
                    true
                }
                _ => {
                    sink.finish(*stream, Timestamp::now());
                    false
                }
            }
        });
        while let Some(job) = sink.compress_job() {
            let succeeded = compress_in_child(job);
            sink.compressed(succeeded);
        }
    }
    0
}

/// In a child of its own, whose low priority ends with it.
fn compress_in_child(job: CompressJob) -> bool {
    let (source, target) = job.into_parts();
    let forked = brig_linux::fork::fork(vec![source.into()], move |mut kept| {
        let source = kept.pop().map(std::fs::File::from);
        let done = source.map(|source| compress(&CompressJob::from_parts(source, target)));
        i32::from(!matches!(done, Some(Ok(()))))
    });
    let waited = forked.ok().and_then(|pid| {
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok().flatten()
    });
    waited.is_some_and(|(_, status)| status.exit_status() == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn descriptors_find_their_places_whatever_they_were() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&read, 200).unwrap();
        // The test has others open, so only the order and what is inherited can be seen.
        let placed = place(vec![high, write.as_fd().try_clone_to_owned().unwrap()]).unwrap();
        assert!(placed[0].as_raw_fd() >= FIRST && placed[0].as_raw_fd() < placed[1].as_raw_fd());
        assert_eq!(rustix::io::fcntl_getfd(&placed[0]).unwrap(), FdFlags::empty());
    }
}
