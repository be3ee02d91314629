//! `update`

use std::io::Read as _;

use anyhow::Context as _;
use lexopt::{Arg, Parser, ValueExt as _};
use serde_json::{Map, Value, json};

use crate::arguments::{self, Global};

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut resources) = (None, Value::Object(Map::new()));
    while let Some(argument) = parser.next()? {
        let (path, value) = match argument {
            Arg::Long("resources") | Arg::Short('r') => {
                resources = read(&parser.value()?.string()?)?;
                continue;
            }
            Arg::Value(value) if found.is_none() => {
                found = Some(value);
                continue;
            }
            Arg::Long(name) => {
                let path = field(name).map(ToOwned::to_owned);
                let Some(path) = path else { return Err(Arg::Long(name).unexpected().into()) };
                (path, parser.value()?.string()?)
            }
            other => return Err(other.unexpected().into()),
        };
        let value = match path.as_str() {
            "cpu/cpus" | "cpu/mems" => json!(value),
            "memory/limit" | "memory/reservation" | "memory/swap" => json!(bytes(&value)?),
            _ => json!(value.parse::<i64>().with_context(|| format!("{path}: {value:?}"))?),
        };
        set(&mut resources, &path, value);
    }
    let id = arguments::id(found)?;
    let resources = serde_json::from_value(resources).context("parse the resources")?;
    global.runtime().container(&id)?.update(&resources)?;
    Ok(0)
}

/// The place of a flag's value in `linux.resources`.
fn field(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "blkio-weight" => "blockIO/weight",
        "cpu-period" => "cpu/period",
        "cpu-quota" => "cpu/quota",
        "cpu-burst" => "cpu/burst",
        "cpu-share" | "cpu-shares" => "cpu/shares",
        "cpu-rt-period" => "cpu/realtimePeriod",
        "cpu-rt-runtime" => "cpu/realtimeRuntime",
        "cpu-idle" => "cpu/idle",
        "cpuset-cpus" => "cpu/cpus",
        "cpuset-mems" => "cpu/mems",
        "memory" => "memory/limit",
        "memory-reservation" => "memory/reservation",
        "memory-swap" => "memory/swap",
        "pids-limit" => "pids/limit",
        _ => return None,
    })
}

fn set(resources: &mut Value, path: &str, value: Value) {
    if let Some((group, name)) = path.split_once('/') {
        resources[group][name] = value;
    }
}

fn read(path: &str) -> anyhow::Result<Value> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    }
    serde_json::from_str(&text).context("parse the resources")
}

/// A number of bytes, with `b`, `k`, `m` or `g` after it; -1 is unlimited.
fn bytes(text: &str) -> anyhow::Result<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (number, shift) = match digits.char_indices().next_back() {
        Some((at, 'k')) => (&digits[..at], 10),
        Some((at, 'm')) => (&digits[..at], 20),
        Some((at, 'g')) => (&digits[..at], 30),
        _ => (digits, 0),
    };
    let number: i64 = number.parse().with_context(|| format!("size {text:?}"))?;
    number.checked_mul(1 << shift).with_context(|| format!("size {text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, number) in
            [("5", 5), ("2k", 2048), ("1M", 1 << 20), ("3gb", 3 << 30), ("-1", -1)]
        {
            assert_eq!(bytes(text).unwrap(), number, "{text}");
        }
        assert!(bytes("x").is_err() && bytes("99999999999g").is_err());
    }
}
