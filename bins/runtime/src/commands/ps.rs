//! `ps`

use anyhow::{Context as _, bail};
use lexopt::{Arg, Parser, ValueExt as _};

use super::Command;
use crate::arguments::{self, Global};
use crate::log::print;

pub(super) const COMMAND: Command = Command {
    name: "ps",
    summary: "list the processes of a container",
    usage: " ID [PS-OPTIONS]",
    flags: &[&[("-f, --format table|json", "how (default: table)")]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut format, mut found) = ("table".to_owned(), None);
    let mut options = Vec::new();
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("format") | Arg::Short('f') => format = parser.value()?.string()?,
            Arg::Value(value) if found.is_none() => {
                found = Some(value);
                // Everything after the id is for ps(1).
                options = parser.raw_args()?.collect();
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let pids = global.runtime().container(&arguments::id(found)?)?.pids()?;
    match format.as_str() {
        "json" => print(&format!("{}\n", serde_json::to_string(&pids)?)),
        "table" => {
            if options.is_empty() {
                options.push("-ef".into());
            }
            options.retain(|option| option != "--");
            let output = std::process::Command::new("ps")
                .args(&options)
                .output()
                .context("run ps(1); `--format json` needs no program")?;
            let text = String::from_utf8_lossy(&output.stdout);
            print(&select(&text, &pids)?);
        }
        other => bail!("unknown format {other:?}: table or json"),
    }
    Ok(0)
}

/// The header of ps's table and the lines of these processes.
fn select(table: &str, pids: &[i32]) -> anyhow::Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.context("the table of ps(1) has no PID column")?;
    let mut text = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_container_are_kept() {
        let table = "UID PID CMD\nroot 1 init\nroot 42 web\n";
        assert_eq!(select(table, &[42]).unwrap(), "UID PID CMD\nroot 42 web\n");
        assert!(select("nothing", &[1]).is_err());
    }
}
