//! `kill`

use anyhow::bail;
use brig_runtime::KillScope;
use lexopt::{Arg, Parser};

use super::Command;
use crate::arguments::{self, Global, switch};

pub(super) const COMMAND: Command = Command {
    name: "kill",
    summary: "send a signal (default: TERM) to a container's first process",
    usage: " ID [SIGNAL]",
    flags: &[&[("-a, --all", "send it to all processes")]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (mut found, mut signal, mut scope) = (None, None, KillScope::Init);
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("all") | Arg::Short('a') => {
                scope = if switch(parser)? { KillScope::All } else { KillScope::Init };
            }
            Arg::Value(value) if found.is_none() => found = Some(value),
            Arg::Value(value) if signal.is_none() => signal = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let signal = signal.map(|value| value.to_string_lossy().into_owned());
    let signal = parse_signal(signal.as_deref().unwrap_or("SIGTERM"))?;
    global.runtime().container(&arguments::id(found)?)?.kill(signal, scope)?;
    Ok(0)
}

/// A signal by number or by name, with or without `SIG`, in any case; real-time signals as `RTMIN+n` and `RTMAX-n`.
fn parse_signal(text: &str) -> anyhow::Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}");
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, base: i32, sign: i32| match rest {
        "" => Some(base),
        rest => rest.get(1..)?.parse::<i32>().ok().map(|offset| base + sign * offset),
    };
    let found = if let Some(rest) = bare.strip_prefix("RTMIN") {
        real_time(rest, 34, 1)
    } else if let Some(rest) = bare.strip_prefix("RTMAX") {
        real_time(rest, 64, -1)
    } else {
        format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
    };
    match found.filter(|number| (1..=64).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35), ("rtmax-2", 62), ("0", 0)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "99", "-1", "SIGNOPE", "RTMIN+99", "RTMINx"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
