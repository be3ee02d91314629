//! One file per command, each with its help.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod mounts;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::fmt::Write as _;

use anyhow::bail;
use lexopt::{Arg, Parser};

use crate::arguments::{self, Global};
use crate::log;

/// The exit code for a command that does not exist, as runc's.
const UNKNOWN: u8 = 3;

/// A flag as it is written, with what it means.
type Flag = (&'static str, &'static str);

/// A command: what its help says, and what it does.
struct Command {
    name: &'static str,
    summary: &'static str,
    /// What follows its name.
    usage: &'static str,
    /// In groups, since commands share some.
    flags: &'static [&'static [Flag]],
    /// Answers the exit code.
    run: fn(&Global, &mut Parser) -> anyhow::Result<u8>,
}

const COMMANDS: [&Command; 18] = [
    &create::COMMAND,
    &start::COMMAND,
    &run::COMMAND,
    &exec::COMMAND,
    &state::COMMAND,
    &list::COMMAND,
    &ps::COMMAND,
    &kill::COMMAND,
    &delete::COMMAND,
    &pause::PAUSE,
    &pause::RESUME,
    &update::COMMAND,
    &mounts::COMMAND,
    &events::COMMAND,
    &spec::COMMAND,
    &features::COMMAND,
    &checkpoint::COMMAND,
    &restore::COMMAND,
];

/// Runs the command that comes next; answers the exit code.
pub(crate) fn run(global: &Global, mut parser: Parser) -> anyhow::Result<u8> {
    let name = match parser.next()? {
        Some(Arg::Value(name)) => name.to_string_lossy().into_owned(),
        _ => bail!("a command is missing"),
    };
    if matches!(name.as_str(), "help" | "h") {
        let topic = parser.next()?;
        return match topic {
            Some(Arg::Value(topic)) => help_on(global, &topic.to_string_lossy()),
            _ => {
                log::print(&summary());
                Ok(0)
            }
        };
    }
    let Some(command) = find(&name) else { return Ok(unknown(global, &name)) };
    match (command.run)(global, &mut parser) {
        Err(error) if error.is::<arguments::HelpWanted>() => help_on(global, &name),
        other => other,
    }
}

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.into_iter().find(|command| command.name == name)
}

fn unknown(global: &Global, name: &str) -> u8 {
    log::error(global, &format!("unknown command {name:?}; `brig-runtime --help` lists them"));
    UNKNOWN
}

fn help_on(global: &Global, name: &str) -> anyhow::Result<u8> {
    let Some(command) = find(name) else { return Ok(unknown(global, name)) };
    let mut text =
        format!("brig-runtime {name}: {}\n\nUsage: brig-runtime {name}", command.summary);
    for part in [if command.flags.is_empty() { "" } else { " [FLAGS]" }, command.usage] {
        text.push_str(part);
    }
    text.push('\n');
    if !command.flags.is_empty() {
        text.push_str("\nFlags:\n");
    }
    write_columns(&mut text, &command.flags.concat())?;
    log::print(&text);
    Ok(0)
}

fn write_columns(text: &mut String, lines: &[(&str, &str)]) -> std::fmt::Result {
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|(left, right)| writeln!(text, "  {left:<width$}  {right}"))
}

/// The help of the program as a whole.
pub(crate) fn summary() -> String {
    let mut text = String::from(arguments::USAGE);
    let commands: Vec<_> = COMMANDS.iter().map(|command| (command.name, command.summary)).collect();
    text.push_str("\nCommands:\n");
    // Writing to a string does not fail.
    let _ = write_columns(&mut text, &commands);
    text.push_str("\nFlags:\n");
    let _ = write_columns(&mut text, &arguments::FLAGS);
    text.push_str("\n`brig-runtime COMMAND --help` shows the flags of a command.\n");
    text
}

/// Parses a command that takes nothing.
fn no_arguments(parser: &mut Parser) -> anyhow::Result<()> {
    match arguments::next(parser)? {
        None => Ok(()),
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Parses a command that takes nothing but a container's id.
fn single_id(parser: &mut Parser) -> anyhow::Result<brig_runtime::ContainerId> {
    let mut found = None;
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    arguments::id(found)
}
