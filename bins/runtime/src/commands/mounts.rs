//! `mounts add` and `mounts remove`, as crun has them.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use lexopt::{Arg, Parser, ValueExt as _};
use oci_spec::runtime::Mount;
use serde_json::Value;

use super::Command;
use crate::arguments::{self, Global};

pub(super) const COMMAND: Command = Command {
    name: "mounts",
    summary: "mount into a container that exists, or unmount from it",
    usage: " add|remove ID FILE  (FILE: a list as of mounts in config.json, - for standard input)",
    flags: &[],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let mut words = Vec::new();
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Value(value) => words.push(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let [change, id, file] = <[_; 3]>::try_from(words)
        .map_err(|_| anyhow::anyhow!("mounts takes add or remove, a container id and a file"))?;
    let container = global.runtime().container(&arguments::id(Some(id))?)?;
    let mounts = read(&file.string()?)?;
    match change.to_str() {
        Some("add") => container.add_mounts(&mounts)?,
        Some("remove") => container.remove_mounts(&mounts)?,
        _ => bail!("unknown change of mounts {change:?}: add or remove"),
    }
    Ok(0)
}

/// A list of mounts, by itself or as the member of a configuration.
fn read(path: &str) -> anyhow::Result<Vec<Mount>> {
    let mut text = String::new();
    match path {
        "-" => drop(std::io::stdin().read_to_string(&mut text).context("read standard input")?),
        path => text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?,
    }
    let mut value: Value = serde_json::from_str(&text).context("parse the mounts")?;
    if let Some(list) = value.get_mut("mounts") {
        value = list.take();
    }
    serde_json::from_value(value).context("parse the mounts")
}
