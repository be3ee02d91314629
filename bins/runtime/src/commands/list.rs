//! `list`

use std::fmt::Write as _;

use anyhow::bail;
use lexopt::{Arg, Parser, ValueExt as _};

use crate::arguments::{Global, switch};
use crate::log::print;

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut format, mut quiet) = ("table".to_owned(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("format") | Arg::Short('f') => format = parser.value()?.string()?,
            Arg::Long("quiet") | Arg::Short('q') => {
                switch(parser)?;
                quiet = true;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let states = global.runtime().list()?;
    if quiet {
        print(&states.iter().fold(String::new(), |text, state| text + &state.id + "\n"));
        return Ok(0);
    }
    match format.as_str() {
        "json" => print(&serde_json::to_string(&states)?),
        "table" => {
            let width = |get: fn(&brig_runtime::ContainerState) -> usize, least: usize| {
                states.iter().map(get).max().unwrap_or(0).max(least)
            };
            let id = width(|state| state.id.len(), 10) + 2;
            let bundle = width(|state| state.bundle.as_os_str().len(), 10) + 2;
            let mut text = format!(
                "{:<id$}{:<12}{:<12}{:<bundle$}{:<34}OWNER\n",
                "ID", "PID", "STATUS", "BUNDLE", "CREATED"
            );
            for state in &states {
                let (path, status) = (state.bundle.display().to_string(), state.status.to_string());
                writeln!(
                    text,
                    "{:<id$}{:<12}{status:<12}{path:<bundle$}{:<34}{}",
                    state.id, state.pid, state.created, state.owner
                )?;
            }
            print(&text);
        }
        other => bail!("unknown format {other:?}: table or json"),
    }
    Ok(0)
}
