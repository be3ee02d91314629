//! The standard streams of a process: pipes that the shim makes, or a terminal that the runtime makes.
//!
//! ```text
//! process stdout ─pipe─▶ shim ─▶ log, attached clients (brigd)
//!                             └▶ FIFO, file or logger    (containerd)
//! process stdin  ◀─pipe─ shim ◀─ attached clients, or the FIFO
//! process tty    ◀─pty──▶ shim   (one channel for all three)
//! ```
//!
//! Pipes keep the kernel's default size of 64 KiB: enough that a writer is not woken for each line, and small enough
//! that a thousand containers stay within the kernel's per-user allowance.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Uid};

/// What Create or Exec asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct StdioRequest {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Keep a pipe for standard input although no FIFO is named.
    pub(crate) open_stdin: bool,
    /// Nobody but attached clients takes output, and a log if there is one.
    pub(crate) attachable: bool,
    /// User and group that own the process's ends, so that it may open them anew (`/dev/stdout`).
    pub(crate) owner: Option<(u32, u32)>,
}

/// The process's ends: standard input, output and error. Empty when it has a terminal.
pub(crate) type ProcessEnds = Vec<OwnedFd>;

/// The shim's ends.
#[derive(Debug, Default)]
pub(crate) struct ShimEnds {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Makes the pipes of a process without a terminal.
pub(crate) fn make_pipes(request: &StdioRequest) -> std::io::Result<(ShimEnds, ProcessEnds)> {
    let mut shim = ShimEnds::default();
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let stdin = if request.open_stdin || !request.stdin.is_empty() {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        shim.stdin = Some(write);
        read
    } else {
        null()?
    };
    let output = |wanted: bool, ours: &mut Option<OwnedFd>| {
        if !wanted {
            return null();
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        *ours = Some(read);
        Ok(write)
    };
    let stdout = output(request.attachable || !request.stdout.is_empty(), &mut shim.stdout)?;
    let stderr = output(request.attachable || !request.stderr.is_empty(), &mut shim.stderr)?;
    for fd in [&shim.stdin, &shim.stdout, &shim.stderr].into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true)?;
        if let Some((user, group)) = request.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            // Both ends of a pipe are one inode.
            rustix::fs::fchown(fd, Some(user), Some(group))?;
        }
    }
    Ok((shim, vec![stdin, stdout, stderr]))
}

/// Where containerd wants output to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A FIFO that containerd or its client made.
    Fifo(PathBuf),
    /// A file to append to.
    File(PathBuf),
    /// A logger to start: its program and `key=value` arguments.
    Binary { program: PathBuf, arguments: Vec<String> },
}

impl Target {
    /// Parses a path or URI of `CreateTaskRequest.stdout`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Fifo(text.into()));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(percent_decode(path));
        if !path.is_absolute() {
            return Err(format!("output {text:?} needs an absolute path"));
        }
        match scheme {
            "fifo" => Ok(Self::Fifo(path)),
            "file" => Ok(Self::File(path)),
            "binary" => {
                let mut arguments = Vec::new();
                for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    arguments.push(percent_decode(key));
                    arguments.extend(Some(percent_decode(value)).filter(|value| !value.is_empty()));
                }
                Ok(Self::Binary { program: path, arguments })
            }
            _ => Err(format!("output {text:?} has an unknown scheme; use fifo, file or binary")),
        }
    }
}

/// Opens a FIFO for both directions, so that neither a missing nor a leaving reader is an error (fifo(7)).
pub(crate) fn open_fifo_for_output(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the reading end of a FIFO, and a writing end that keeps it from ending before CloseIO.
pub(crate) fn open_fifo_for_input(path: &Path) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let read = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty())?;
    let hold = rustix::fs::open(path, OFlags::WRONLY | flags, Mode::empty())?;
    Ok((read, hold))
}

/// Opens (and makes) a file that output is appended to.
pub(crate) fn open_file(path: &Path) -> std::io::Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    Ok(file.into())
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => {
                hexadecimal(*high).zip(hexadecimal(*low)).map(|(high, low)| high << 4 | low)
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_parse() {
        let fifo = Target::Fifo("/run/x/stdout".into());
        assert_eq!(Target::parse("/run/x/stdout").unwrap(), fifo);
        assert_eq!(Target::parse("fifo:///run/x/stdout").unwrap(), fifo);
        assert_eq!(
            Target::parse("file:///var/log/a%20b.log").unwrap(),
            Target::File("/var/log/a b.log".into())
        );
        assert_eq!(
            Target::parse("binary:///usr/bin/log?id=a%2Fb&flag").unwrap(),
            Target::Binary {
                program: "/usr/bin/log".into(),
                arguments: vec!["id".into(), "a/b".into(), "flag".into()],
            }
        );
        assert!(Target::parse("npipe:////x").is_err());
        assert!(Target::parse("file://relative").is_err());
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[test]
    fn unwanted_streams_are_null() {
        let (shim, process) = make_pipes(&StdioRequest::default()).unwrap();
        assert!(shim.stdin.is_none() && shim.stdout.is_none() && shim.stderr.is_none());
        assert_eq!(process.len(), 3);
    }
}
