//! `create` and what `run` shares with it.

use std::path::PathBuf;

use brig_runtime::{Console, ContainerId, CreateOptions};
use lexopt::{Arg, Parser, ValueExt as _};

use crate::arguments::{self, Global, switch};

/// The flags of `create` and `run`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) console_socket: Option<PathBuf>,
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
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        detach: false,
        keep: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => request.bundle = parser.value()?.into(),
            Arg::Long("console-socket") => request.console_socket = Some(parser.value()?.into()),
            Arg::Long("pid-file") => request.pid_file = Some(parser.value()?.into()),
            Arg::Long("no-pivot") => {
                switch(parser)?;
                request.no_pivot = true;
            }
            Arg::Long("no-new-keyring") => {
                switch(parser)?;
                request.no_new_keyring = true;
            }
            Arg::Long("preserve-fds") => request.preserve_fds = parser.value()?.parse()?,
            // Init is a child of this process; whether the caller is a subreaper is the caller's affair.
            Arg::Long("no-subreaper") if foreground => switch(parser)?,
            Arg::Long("detach") | Arg::Short('d') if foreground => {
                switch(parser)?;
                request.detach = true;
            }
            Arg::Long("keep") if foreground => {
                switch(parser)?;
                request.keep = true;
            }
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    request.id = arguments::id(found)?;
    Ok(request)
}

impl Request {
    /// The library's options, with the terminal going to `console`.
    pub(super) fn options(&self, console: Console) -> CreateOptions {
        CreateOptions {
            console,
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
            listen_fds: listen_fds(),
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
    // The number names whoever was started with the sockets, which may be the engine that executed this program.
    number("LISTEN_FDS").unwrap_or(0)
}

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let request = parse(parser, false)?;
    super::run::seal()?;
    let options = request.options(request.socket());
    global.runtime().create(&request.id, &request.bundle, options)?;
    Ok(0)
}
