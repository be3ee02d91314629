//! `restore`: bring a saved container back, and wait unless detached.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use brig_runtime::{Console, RestoreOptions};
use lexopt::{Arg, Parser, ValueExt as _};

use super::Command;
use super::checkpoint::{complete, shared};
use crate::arguments::{self, Global, switch};
use crate::console::Foreground;

pub(super) const COMMAND: Command = Command {
    name: "restore",
    summary: "bring back a container that checkpoint saved, from its bundle",
    usage: " ID",
    flags: &[
        super::checkpoint::FLAGS,
        &[
            ("-b, --bundle DIR", "the bundle (default: the working directory)"),
            ("-d, --detach", "do not wait for the container's end"),
            ("--pid-file FILE", "write the number of the container's first process there"),
            ("--console-socket PATH", "a Unix socket that gets the master side of the terminal"),
            (
                "--lsm-profile TYPE:LABEL",
                "apparmor or selinux, and the label instead of the bundle's",
            ),
            ("--lsm-mount-context CONTEXT", "the SELinux context of mounts that have one"),
            ("--no-subreaper", "accepted for compatibility"),
        ],
    ],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut bundle, mut detach) = (None, PathBuf::from("."), false);
    let mut options = RestoreOptions::default();
    let mut socket = None;
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => bundle = parser.value()?.into(),
            Arg::Long("detach") | Arg::Short('d') => detach = switch(parser)?,
            Arg::Long("pid-file") => options.create.pid_file = Some(parser.value()?.into()),
            Arg::Long("console-socket") => socket = Some(PathBuf::from(parser.value()?)),
            Arg::Long("lsm-profile") => options.lsm_profile = Some(parser.value()?.string()?),
            Arg::Long("lsm-mount-context") => {
                options.lsm_mount_context = Some(parser.value()?.string()?);
            }
            Arg::Long("no-pivot") => options.create.no_pivot = switch(parser)?,
            Arg::Long("preserve-fds") => options.create.preserve_fds = parser.value()?.parse()?,
            // The container is a child of this process; whether the caller is a subreaper is the caller's affair.
            Arg::Long("no-subreaper") => drop(switch(parser)?),
            Arg::Long(name) => {
                let name = name.to_owned();
                shared(&mut options.criu, &name, parser)?;
            }
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = arguments::id(found)?;
    complete(&mut options.criu)?;
    super::run::seal()?;
    options.create.console = match (socket, detach) {
        (Some(socket), _) => Console::Socket(socket),
        (None, true) => Console::None,
        (None, false) => Console::Return,
    };
    let runtime = global.runtime();
    if detach {
        runtime.restore(&id, &bundle, options)?;
        return Ok(0);
    }
    let foreground = Foreground::prepare()?;
    let restored = runtime.restore(&id, &bundle, options)?;
    let status = foreground.wait(restored.pidfd.as_fd(), restored.console.as_ref());
    restored.container.delete(true)?;
    status
}
