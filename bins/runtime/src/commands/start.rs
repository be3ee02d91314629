//! `start`

use std::os::fd::AsFd as _;

use brig_runtime::Container;
use lexopt::Parser;

use super::Command;
use crate::arguments::Global;
use crate::notify::Relay;

pub(super) const COMMAND: Command = Command {
    name: "start",
    summary: "run the program of a created container",
    usage: " ID",
    flags: &[],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    let container = global.runtime().container(&id)?;
    start_and_tell(&container)?;
    Ok(0)
}

/// Starts a container; where a service manager waits for its program, only answers when that is ready.
pub(super) fn start_and_tell(container: &Container) -> anyhow::Result<()> {
    let Some(relay) = Relay::prepare(container)? else { return Ok(container.start()?) };
    let pid = container.state()?.pid;
    let pidfd = brig_runtime::pidfd::open(pid)?;
    container.start()?;
    relay.run(pidfd.as_fd(), pid)
}
