//! `state`

use lexopt::Parser;

use super::Command;
use crate::arguments::Global;
use crate::log::print;

pub(super) const COMMAND: Command = Command {
    name: "state",
    summary: "print the state of a container",
    usage: " ID",
    flags: &[],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    let mut state = global.runtime().container(&id)?.state()?;
    // As runc, which knows the owner in `list` alone, and engines that compare the two.
    state.owner.clear();
    print(&format!("{}\n", serde_json::to_string_pretty(&state)?));
    Ok(0)
}
