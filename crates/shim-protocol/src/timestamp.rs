//! Points in time: `google.protobuf.Timestamp` and RFC 3339, without a calendar library.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Cause, Error, Result};

/// `google.protobuf.Timestamp`: seconds and nanoseconds since 1970-01-01T00:00:00Z.
///
/// Displays as RFC 3339 with all nine digits of nanoseconds (`2026-11-24T04:15:19.000000001Z`), so that times of
/// one second sort as text; serde uses the same form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Message)]
pub struct Timestamp {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

const SECONDS_PER_DAY: i64 = 86_400;

impl Timestamp {
    /// The wall clock's time.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The time from `earlier` on; nothing when that is later, as after a step of the clock.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let passed = nanos(self).saturating_sub(nanos(earlier));
        Duration::from_nanos(u64::try_from(passed.max(0)).unwrap_or(u64::MAX))
    }

    /// Parses RFC 3339 with `Z` or a numeric offset and up to nine digits of fraction.
    ///
    /// # Errors
    /// `InvalidInput` when the text is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| Cause::Time { text: text.chars().take(64).collect() }.into())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (signed(after), after.subsec_nanos()),
            Err(before) => match before.duration() {
                whole if whole.subsec_nanos() == 0 => (-signed(whole), 0),
                part => (-signed(part) - 1, 1_000_000_000 - part.subsec_nanos()),
            },
        };
        Self { seconds, nanos: i32::try_from(nanos).unwrap_or(0) }
    }
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seconds.div_euclid(SECONDS_PER_DAY);
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
            self.nanos
        )
    }
}

impl std::str::FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Days since the epoch to year, month and day, by counting in eras of 400 years that begin in March (so that the
/// leap day comes last).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The reverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    let (hour, minute, second) =
        (digits(bytes, 11, 2)?, digits(bytes, 14, 2)?, digits(bytes, 17, 2)?);
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let shaped = separators.iter().all(|&(at, byte)| bytes[at] == byte)
        && matches!(bytes[10], b'T' | b't' | b' ');
    let ranges = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !shaped || !ranges {
        return None;
    }
    let (nanos, zone) = fraction(&bytes[19..])?;
    let seconds =
        days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second
            - offset(zone)?;
    Some(Timestamp { seconds, nanos })
}

fn digits(bytes: &[u8], start: usize, count: usize) -> Option<i64> {
    let part = bytes.get(start..start + count)?;
    part.iter().try_fold(0, |value, &byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn fraction(rest: &[u8]) -> Option<(i32, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let scale = 10_i64.pow(u32::try_from(9 - count).ok()?);
    Some((i32::try_from(digits(after, 0, count)? * scale).ok()?, &after[count..]))
}

fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let seconds = digits(zone, 1, 2)? * 3600 + digits(zone, 4, 2)? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_format_and_parse() {
        let table = [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_795_493_719, 5, "2026-11-24T04:15:19.000000005Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.500000000Z"),
        ];
        for (seconds, nanos, text) in table {
            let time = Timestamp { seconds, nanos };
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::parse(text).unwrap(), time);
        }
    }

    #[test]
    fn offsets_and_short_fractions_parse() {
        let parsed = Timestamp::parse("1970-01-01T02:00:00.5+02:00").unwrap();
        assert_eq!(parsed, Timestamp { seconds: 0, nanos: 500_000_000 });
        for bad in
            ["", "1970", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00", "1970-01-01T00:00:00.Z"]
        {
            assert!(Timestamp::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_before_the_epoch_convert() {
        let time = UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(Timestamp::from(time), Timestamp { seconds: -1, nanos: 500_000_000 });
    }

    proptest::proptest! {
        #[test]
        fn text_round_trips(seconds in -60_000_000_000_i64..200_000_000_000, nanos in 0..1_000_000_000_i32) {
            let time = Timestamp { seconds, nanos };
            proptest::prop_assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
        }
    }
}
