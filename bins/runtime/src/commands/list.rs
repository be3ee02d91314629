//! `list`

use anyhow::bail;
use lexopt::{Arg, Parser, ValueExt as _};

use super::Command;
use crate::arguments::{self, Global, switch};
use crate::log::print;

pub(super) const COMMAND: Command = Command {
    name: "list",
    summary: "list containers",
    usage: "",
    flags: &[&[
        ("-f, --format table|json", "how (default: table)"),
        ("-q, --quiet", "only the ids"),
    ]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut format, mut quiet) = ("table".to_owned(), false);
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("format") | Arg::Short('f') => format = parser.value()?.string()?,
            Arg::Long("quiet") | Arg::Short('q') => quiet = switch(parser)?,
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
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
            rows.extend(states.iter().map(|state| {
                let bundle = state.bundle.display().to_string();
                let (pid, status) = (state.pid.to_string(), state.status.to_string());
                [state.id.clone(), pid, status, bundle, state.created.clone(), state.owner.clone()]
            }));
            print(&table(&rows));
        }
        other => bail!("unknown format {other:?}: table or json"),
    }
    Ok(0)
}

/// Columns of at least twelve places, three of them free, as runc has them.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<_> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let (last, others) = row.split_last().map_or(("", &[][..]), |(last, rest)| (last, rest));
        for (cell, width) in others.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_entry_and_three() {
        let rows =
            [["ID", "OWNER"], ["a-long-identifier", "root"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "ID                  OWNER\na-long-identifier   root\n");
        assert_eq!(table(&rows[..1]), "ID          OWNER\n");
    }
}
