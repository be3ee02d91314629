//! `events`

use std::time::Duration;

use anyhow::bail;
use lexopt::{Arg, Parser, ValueExt as _};

use crate::arguments::{self, Global, switch};
use crate::log::print;

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut once, mut interval) = (None, false, Duration::from_secs(5));
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("stats") => {
                switch(parser)?;
                once = true;
            }
            Arg::Long("interval") => interval = parse_interval(&parser.value()?.string()?)?,
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = arguments::id(found)?;
    let container = global.runtime().container(&id)?;
    loop {
        let stats = container.stats()?;
        let line = serde_json::json!({"type": "stats", "id": id.as_str(), "data": stats});
        print(&format!("{line}\n"));
        if once || container.status()? == brig_runtime::Status::Stopped {
            return Ok(0);
        }
        std::thread::sleep(interval);
    }
}

/// `5s`, `500ms` or `1m`.
fn parse_interval(text: &str) -> anyhow::Result<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => bail!("unknown interval {text:?}: such as 5s"),
    };
    match number.parse::<u64>() {
        Ok(number @ 1..) => Ok(Duration::from_millis(number.saturating_mul(milliseconds))),
        _ => bail!("unknown interval {text:?}: such as 5s"),
    }
}
