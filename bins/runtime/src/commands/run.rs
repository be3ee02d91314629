//! `run`: create, start, and wait unless detached.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use brig_runtime::{Console, Container, Created};
use lexopt::Parser;

use super::Command;
use super::create::{Request, parse};
use crate::arguments::Global;
use crate::console::Foreground;
use crate::notify::Relay;

pub(super) const COMMAND: Command = Command {
    name: "run",
    summary: "create and start a container",
    usage: " ID",
    flags: &[
        super::create::FLAGS,
        &[
            ("-d, --detach", "do not wait for the container's end"),
            ("--keep", "keep the container when it has ended"),
            ("--no-subreaper", "accepted for compatibility"),
        ],
    ],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let request = parse(parser, true)?;
    seal()?;
    let runtime = global.runtime();
    if request.detach {
        let options = request.options(request.socket());
        let created = runtime.create(&request.id, &request.bundle, options)?;
        let started = super::start::start_and_tell(&created.container);
        return or_delete(started, &created.container).map(|()| 0);
    }
    let foreground = Foreground::prepare()?;
    let options = request.options(console(&request));
    let created = runtime.create(&request.id, &request.bundle, options)?;
    let relay = Relay::prepare(&created.container)?;
    or_delete(created.container.start().map_err(Into::into), &created.container)?;
    if let Some(relay) = relay {
        tell_meanwhile(global, relay, &created)?;
    }
    let status = foreground.wait(created.pidfd.as_fd(), created.console.as_ref());
    if !request.keep {
        created.container.delete(true)?;
    }
    status
}

/// Removes what could not be started.
fn or_delete(started: anyhow::Result<()>, container: &Container) -> anyhow::Result<()> {
    started.inspect_err(|_| {
        // The failure to start is the one to report.
        drop(container.delete(true));
    })
}

/// Tells the service manager when the program is ready, while this process waits for its end.
fn tell_meanwhile(global: &Global, relay: Relay, created: &Created) -> anyhow::Result<()> {
    let pidfd = created.pidfd.try_clone().context("share the container's descriptor")?;
    let (log, log_format, pid) = (global.log.clone(), global.log_format, created.pid);
    std::thread::spawn(move || {
        if let Err(error) = relay.run(pidfd.as_fd(), pid) {
            let global = Global { log, log_format, ..Global::default() };
            crate::log::warning(&global, &format!("{error:#}"));
        }
    });
    Ok(())
}

/// In the foreground the terminal comes back here, unless a console socket takes it.
fn console(request: &Request) -> Console {
    match request.socket() {
        Console::None => Console::Return,
        other => other,
    }
}

/// Makes sure that containers cannot overwrite this program (CVE-2019-5736).
pub(super) fn seal() -> anyhow::Result<()> {
    brig_runtime::seal_executable(std::env::args_os(), std::env::vars_os())?;
    Ok(())
}
