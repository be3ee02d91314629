//! `delete`

use brig_runtime::ErrorKind;
use lexopt::{Arg, Parser};

use super::Command;
use crate::arguments::{self, Global, switch};

pub(super) const COMMAND: Command = Command {
    name: "delete",
    summary: "remove a container",
    usage: " ID",
    flags: &[&[("-f, --force", "kill it first if it runs; what is not there is no error")]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut force) = (None, false);
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("force") | Arg::Short('f') => force = switch(parser)?,
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = arguments::id(found)?;
    match global.runtime().container(&id) {
        Ok(container) => container.delete(force)?,
        // As runc: forced removal of what is not there has nothing left to do.
        Err(error) if force && error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}
