//! `events`

mod statistics;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use brig_runtime::{Container, Status};
use lexopt::{Arg, Parser, ValueExt as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;

use super::Command;
use crate::arguments::{self, Global, switch};
use crate::log::print;

pub(super) const COMMAND: Command = Command {
    name: "events",
    summary: "print statistics and out-of-memory events as JSON lines",
    usage: " ID",
    flags: &[&[
        ("--stats", "print the statistics once and end"),
        ("--interval TIME", "time between statistics, such as 500ms or 1m (default: 5s)"),
    ]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut once, mut interval) = (None, false, Duration::from_secs(5));
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("stats") => once = switch(parser)?,
            Arg::Long("interval") => interval = parse_interval(&parser.value()?.string()?)?,
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = arguments::id(found)?;
    let container = global.runtime().container(&id)?;
    if container.status()? == Status::Stopped {
        bail!("container {id} is not running");
    }
    if once {
        return print_statistics(&container).map(|()| 0);
    }
    follow(&container, interval)?;
    Ok(0)
}

fn print_statistics(container: &Container) -> anyhow::Result<()> {
    let data = statistics::data(&container.stats()?);
    let line = json!({"type": "stats", "id": container.id().as_str(), "data": data});
    print(&format!("{line}\n"));
    Ok(())
}

/// Prints statistics at every interval, and each time that memory ran out, until the container has ended.
fn follow(container: &Container, interval: Duration) -> anyhow::Result<()> {
    let pidfd = brig_runtime::pidfd::open(container.state()?.pid)?;
    // Where the memory controller is missing nothing can run out of it.
    let watch = container.cgroup()?.oom_watch().ok();
    let kills = || container.stats().ok().and_then(|stats| stats.memory).map_or(0, |m| m.oom_kills);
    let mut seen = kills();
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).context("the interval is too long")?;
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(watch.as_ref().map(|watch| PollFd::new(watch, PollFlags::IN)));
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.get(1) == Some(&true) {
            watch.iter().try_for_each(brig_runtime::cgroup::OomWatch::acknowledge)?;
        }
        // The watch also wakes for other changes, and a container may end by running out.
        if ready.contains(&true) {
            let now = kills();
            if now > seen {
                print(&format!("{}\n", json!({"type": "oom", "id": container.id().as_str()})));
            }
            seen = now.max(seen);
        }
        if ready[0] {
            return Ok(());
        }
        if Instant::now() >= next {
            print_statistics(container)?;
            next = Instant::now() + interval;
        }
    }
}

/// As Go writes durations: `5s`, `500ms`, `1m30s`, `1.5h`.
fn parse_interval(text: &str) -> anyhow::Result<Duration> {
    let unknown = || anyhow!("unknown interval {text:?}: such as 5s, 500ms or 1m30s, above 0");
    let mut left = text;
    let mut seconds = 0.0;
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(unknown)?;
        let (number, rest) = left.split_at(digits);
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(unknown()),
        };
        seconds += number.parse::<f64>().map_err(|_| unknown())? * scale;
        left = rest;
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos() {
        for (text, milliseconds) in
            [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500)]
        {
            assert_eq!(
                parse_interval(text).unwrap(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        for text in ["", "0s", "5", "s", "5x", "-1s", "1..5s"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
