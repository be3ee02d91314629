//! `update`

use std::io::Read as _;

use anyhow::Context as _;
use lexopt::{Arg, Parser, ValueExt as _};
use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Map, Value, json};

use super::Command;
use crate::arguments::{self, Global};
use crate::log;

pub(super) const COMMAND: Command = Command {
    name: "update",
    summary: "change the limits of a container",
    usage: " ID",
    flags: &[&[
        (
            "-r, --resources FILE",
            "linux.resources as JSON, - for standard input; other flags are ignored",
        ),
        ("--blkio-weight N", "weight of block I/O, 10 to 1000"),
        ("--cpu-period US", "CPU period in microseconds"),
        ("--cpu-quota US", "CPU time in a period in microseconds, -1 for no limit"),
        ("--cpu-burst US", "CPU time that may be saved up in microseconds"),
        ("--cpu-share N", "CPU weight against other containers"),
        ("--cpu-rt-period US", "period of real-time scheduling in microseconds"),
        ("--cpu-rt-runtime US", "CPU time in such a period in microseconds"),
        ("--cpu-idle 0|1", "run only when nothing else wants to"),
        ("--cpuset-cpus LIST", "processors to use"),
        ("--cpuset-mems LIST", "memory nodes to use"),
        ("--memory BYTES", "memory limit, with a unit such as 64m; -1 for none"),
        ("--memory-reservation BYTES", "memory that is not reclaimed first"),
        ("--memory-swap BYTES", "memory and swap together, -1 for no limit"),
        ("--pids-limit N", "most processes, -1 for no limit"),
        ("--l3-cache-schema TEXT", "schemata of the L3 cache in resctrl"),
        ("--mem-bw-schema TEXT", "schemata of the memory bandwidth in resctrl"),
    ]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut file) = (None, None);
    let mut flags = Value::Object(Map::new());
    let mut cache = LinuxIntelRdt::default();
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("resources") | Arg::Short('r') => file = Some(parser.value()?.string()?),
            Arg::Long("l3-cache-schema") => {
                cache.set_l3_cache_schema(Some(parser.value()?.string()?));
            }
            Arg::Long("mem-bw-schema") => {
                cache.set_mem_bw_schema(Some(parser.value()?.string()?));
            }
            Arg::Long("kernel-memory" | "kernel-memory-tcp") => {
                parser.value()?;
                log::warning(global, "limits of kernel memory are ignored: kernels have none");
            }
            Arg::Value(value) if found.is_none() => found = Some(value),
            Arg::Long(name) => {
                let path = field(name).map(ToOwned::to_owned);
                let Some(path) = path else { return Err(Arg::Long(name).unexpected().into()) };
                let value = value_of(&path, &parser.value()?.string()?)?;
                set(&mut flags, &path, value);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let container = global.runtime().container(&arguments::id(found)?)?;
    let mut resources = file.map_or(Ok(flags), |file| read(&file))?;
    // Without a limit of memory, one of memory and swap together would be none of use.
    if resources["memory"]["limit"] == json!(-1) && resources["memory"]["swap"].is_null() {
        set(&mut resources, "memory/swap", json!(-1));
    }
    let resources = serde_json::from_value(resources).context("parse the resources")?;
    container.update(&resources)?;
    if cache.l3_cache_schema().is_some() || cache.mem_bw_schema().is_some() {
        container.update_cache(&cache)?;
    }
    Ok(0)
}

fn value_of(path: &str, text: &str) -> anyhow::Result<Value> {
    Ok(match path {
        "cpu/cpus" | "cpu/mems" => json!(text),
        "memory/limit" | "memory/reservation" | "memory/swap" => json!(bytes(text)?),
        _ => json!(text.parse::<i64>().with_context(|| format!("{path}: {text:?}"))?),
    })
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
