//! Signal names and numbers.

use crate::error::{Error, Result};

pub(crate) const KILL: u32 = 9;
pub(crate) const TERM: u32 = 15;
/// The highest real-time signal.
const MAX: u32 = 64;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `SIGKILL`; a real-time signal by its distance from the first.
pub(crate) fn name(number: u32) -> String {
    let index = usize::try_from(number).unwrap_or(usize::MAX).checked_sub(1);
    match (index.and_then(|index| NAMES.get(index)), number.checked_sub(34)) {
        (Some(name), _) => format!("SIG{name}"),
        (None, Some(0)) => "SIGRTMIN".into(),
        (None, Some(offset)) => format!("SIGRTMIN+{offset}"),
        (None, None) => format!("signal {number}"),
    }
}

/// Parses `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`, `RTMAX-1`.
pub(crate) fn parse(text: &str) -> Result<u32> {
    let wrong = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=MAX).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(index + 1).map_err(|_| wrong());
    }
    let real_time = |rest: &str, sign: char, base: u32| -> Option<u32> {
        let offset =
            if rest.is_empty() { 0 } else { rest.strip_prefix(sign)?.parse::<u32>().ok()? };
        if sign == '+' { base.checked_add(offset) } else { base.checked_sub(offset) }
    };
    let number = match name {
        "CLD" => Some(17),
        "IOT" => Some(6),
        "POLL" => Some(29),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            // glibc keeps the first two real-time signals for itself.
            (Some(rest), _) => real_time(rest, '+', 34),
            (_, Some(rest)) => real_time(rest, '-', MAX),
            _ => None,
        },
    };
    number.filter(|number| (1..=MAX).contains(number)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_parse_by_name_and_number() {
        let rows = [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-14", 50),
        ];
        for (text, number) in rows {
            assert_eq!(parse(text).expect(text), number, "{text}");
            assert_eq!(parse(&name(number)).expect(text), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "NOPE", "SIG", "RTMIN+99", "RTMAX-99", "RTMIN-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
