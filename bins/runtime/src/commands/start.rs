//! `start`

use lexopt::Parser;

use super::Command;
use crate::arguments::Global;

pub(super) const COMMAND: Command = Command {
    name: "start",
    summary: "run the program of a created container",
    usage: " ID",
    flags: &[],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.start()?;
    Ok(0)
}
