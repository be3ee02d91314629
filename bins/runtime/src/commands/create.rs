//! `create` and what `run` shares with it.

use std::path::PathBuf;

use brig_runtime::{Console, ContainerId, CreateOptions};
use lexopt::{Arg, Parser, ValueExt as _};

use super::{Command, Flag};
use crate::arguments::{self, Global, switch};
use crate::notify;

/// The flags of `create` and `run`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) pidfd_socket: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) no_pivot: bool,
    pub(super) no_new_keyring: bool,
    pub(super) preserve_fds: u32,
    pub(super) detach: bool,
    pub(super) keep: bool,
}

/// Parses the flags; those of `run` alone only when `foreground`.
pub(super) fn parse(parser: &mut Parser, foreground: bool) -> anyhow::Result<Request> {
    let mut found = None;
    let mut request = Request {
        id: ContainerId::parse("unnamed")?,
        bundle: PathBuf::from("."),
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        detach: false,
        keep: false,
    };
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => request.bundle = parser.value()?.into(),
            Arg::Long("console-socket") => request.console_socket = Some(parser.value()?.into()),
            Arg::Long("pid-file") => request.pid_file = Some(parser.value()?.into()),
            Arg::Long("pidfd-socket") => request.pidfd_socket = Some(parser.value()?.into()),
            Arg::Long("no-pivot") => request.no_pivot = switch(parser)?,
            Arg::Long("no-new-keyring") => request.no_new_keyring = switch(parser)?,
            // Every mount is made as it was asked for, or not at all.
            Arg::Long("no-mount-fallback") => drop(switch(parser)?),
            Arg::Long("preserve-fds") => request.preserve_fds = parser.value()?.parse()?,
            // Init is a child of this process; whether the caller is a subreaper is the caller's affair.
            Arg::Long("no-subreaper") if foreground => drop(switch(parser)?),
            Arg::Long("detach") | Arg::Short('d') if foreground => request.detach = switch(parser)?,
            Arg::Long("keep") if foreground => request.keep = switch(parser)?,
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    request.id = arguments::id(found)?;
    brig_runtime::check_preserved(request.preserve_fds.saturating_add(listen_fds()))?;
    Ok(request)
}

impl Request {
    /// The library's options, with the terminal going to `console`.
    pub(super) fn options(&self, console: Console) -> CreateOptions {
        CreateOptions {
            console,
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
            listen_fds: listen_fds(),
            notify: notify::wanted(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            ..CreateOptions::default()
        }
    }

    /// The console socket, if one is given.
    pub(super) fn socket(&self) -> Console {
        self.console_socket.clone().map_or(Console::None, Console::Socket)
    }
}

/// Sockets that a service manager handed to this process (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    // Whoever started this program for its sockets says its number; those of another process are not here.
    let meant = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| meant).unwrap_or(0)
}

/// What `create` and `run` both take.
pub(super) const FLAGS: &[Flag] = &[
    ("-b, --bundle DIR", "the bundle (default: the working directory)"),
    ("--console-socket PATH", "a Unix socket that gets the master side of the terminal"),
    (
        "--pidfd-socket PATH",
        "a Unix socket that gets a descriptor of the container's first process",
    ),
    ("--pid-file FILE", "write the number of the container's first process there"),
    ("--preserve-fds N", "pass on N descriptors after standard error and LISTEN_FDS (default: 0)"),
    ("--no-pivot", "chroot instead of pivot_root, on an initial ramdisk"),
    ("--no-new-keyring", "keep the caller's session keyring"),
    ("--no-mount-fallback", "accepted for compatibility: mounts never fall back"),
];

pub(super) const COMMAND: Command = Command {
    name: "create",
    summary: "make a container from a bundle; its program waits for start",
    usage: " ID",
    flags: &[FLAGS],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let request = parse(parser, false)?;
    super::run::seal()?;
    let options = request.options(request.socket());
    global.runtime().create(&request.id, &request.bundle, options)?;
    Ok(0)
}
