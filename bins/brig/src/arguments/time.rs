//! Times and durations: Go's durations (`1m30s`) and docker's `--since` and `--until`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use brig_engine_api::query::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A Go duration that is not negative.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    Ok(Duration::from_nanos(u64::try_from(duration_nanoseconds(text)?)?))
}

/// A Go duration in nanoseconds.
pub(crate) fn duration_nanoseconds(text: &str) -> Result<i64> {
    let invalid = || format!("invalid duration {text:?}: expected a form such as 1m30s");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        bail!(invalid());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().with_context(invalid)?;
        rest = &rest[digits..];
        let letters = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => bail!(invalid()),
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    if total > 9e18 {
        bail!("the duration {text:?} is too long");
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below i64::MAX just above")]
    Ok(total as i64)
}

/// A moment: a Unix time, a date, RFC 3339, or a duration before now.
pub(crate) fn moment(text: &str) -> Result<UnixTime> {
    if let Ok(nanoseconds) = duration_nanoseconds(text)
        && text != "0"
    {
        return Ok(unix(OffsetDateTime::now_utc() - time::Duration::nanoseconds(nanoseconds)));
    }
    if let Some(parsed) = seconds(text) {
        return Ok(parsed);
    }
    for candidate in
        [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")]
    {
        if let Ok(date) = OffsetDateTime::parse(&candidate, &Rfc3339) {
            return Ok(unix(date));
        }
    }
    bail!(
        "invalid time {text:?}: expected a duration such as 10m, a date such as 2026-01-02T15:04:05, or a Unix time"
    )
}

/// `SECONDS[.FRACTION]`.
fn seconds(text: &str) -> Option<UnixTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some(UnixTime { seconds: whole.parse().ok()?, nanoseconds: digits.parse().ok()? })
}

fn unix(date: OffsetDateTime) -> UnixTime {
    UnixTime { seconds: date.unix_timestamp(), nanoseconds: date.nanosecond() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("10ms", 10_000_000),
        ] {
            assert_eq!(duration_nanoseconds(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "1", "s", "1y", "-1s"] {
            assert!(duration_nanoseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_have_four_forms() {
        assert_eq!(moment("12.5").unwrap(), UnixTime { seconds: 12, nanoseconds: 500_000_000 });
        assert_eq!(moment("2001-09-09T01:46:40Z").unwrap().seconds, 1_000_000_000);
        assert_eq!(moment("2001-09-09").unwrap().seconds, 999_993_600);
        assert!(moment("10m").unwrap().seconds > 1_000_000_000);
        assert!(moment("yesterday").is_err());
    }
}
