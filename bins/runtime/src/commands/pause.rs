//! `pause` and `resume`

use lexopt::Parser;

use super::Command;
use crate::arguments::Global;

pub(super) const PAUSE: Command = Command {
    name: "pause",
    summary: "freeze the processes of a container",
    usage: " ID",
    flags: &[],
    run: pause,
};

fn pause(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.pause()?;
    Ok(0)
}

pub(super) const RESUME: Command = Command {
    name: "resume",
    summary: "thaw the processes of a container",
    usage: " ID",
    flags: &[],
    run: resume,
};

fn resume(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.resume()?;
    Ok(0)
}
