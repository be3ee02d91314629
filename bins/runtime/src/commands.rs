//! One file per command.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use anyhow::bail;
use lexopt::{Arg, Parser};

use crate::arguments::Global;

/// Runs the command that comes next; answers the exit code.
pub(crate) fn run(global: &Global, mut parser: Parser) -> anyhow::Result<u8> {
    let Some(Arg::Value(command)) = parser.next()? else { bail!("a command is missing") };
    let parser = &mut parser;
    match command.to_str().unwrap_or_default() {
        "create" => create::run(global, parser),
        "start" => start::run(global, parser),
        "run" => run::run(global, parser),
        "exec" => exec::run(global, parser),
        "state" => state::run(global, parser),
        "list" => list::run(global, parser),
        "ps" => ps::run(global, parser),
        "kill" => kill::run(global, parser),
        "delete" => delete::run(global, parser),
        "pause" => pause::pause(global, parser),
        "resume" => pause::resume(global, parser),
        "update" => update::run(global, parser),
        "events" => events::run(global, parser),
        "spec" => spec::run(parser),
        "features" => features::run(parser),
        other => bail!("unknown command {other:?}; `brig-runtime --help` lists them"),
    }
}

/// Parses a command that takes nothing.
fn no_arguments(parser: &mut Parser) -> anyhow::Result<()> {
    match parser.next()? {
        None => Ok(()),
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Parses a command that takes nothing but container ids.
fn single_id(parser: &mut Parser) -> anyhow::Result<brig_runtime::ContainerId> {
    let mut found = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    crate::arguments::id(found)
}
