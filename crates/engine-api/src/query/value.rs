//! How the types of fields appear in a query.

use std::fmt;
use std::str::FromStr;

use super::QueryError;
use crate::Filters;

/// A type that a query parameter can have.
pub(super) trait Value: Default {
    /// Parses the values given, of which there is at least one.
    fn parse(name: &'static str, values: &[&str]) -> Result<Self, QueryError>;

    /// The texts to write; none for the default.
    fn encode(&self) -> Vec<String>;
}

/// Go's daemon takes every text for true but these.
fn is_true(text: &str) -> bool {
    let text = text.trim();
    !["", "0", "no", "false", "none"].iter().any(|no| text.eq_ignore_ascii_case(no))
}

impl Value for bool {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Ok(is_true(values[0]))
    }

    fn encode(&self) -> Vec<String> {
        if *self { vec!["1".to_owned()] } else { Vec::new() }
    }
}

impl Value for Option<bool> {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Ok(if values[0].is_empty() { None } else { Some(is_true(values[0])) })
    }

    fn encode(&self) -> Vec<String> {
        self.iter().map(|value| u8::from(*value).to_string()).collect()
    }
}

impl Value for String {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Ok(values[0].to_owned())
    }

    fn encode(&self) -> Vec<String> {
        if self.is_empty() { Vec::new() } else { vec![self.clone()] }
    }
}

/// Empty text is the same as none.
impl Value for Option<String> {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Ok(Some(values[0].to_owned()).filter(|value| !value.is_empty()))
    }

    fn encode(&self) -> Vec<String> {
        self.iter().cloned().collect()
    }
}

impl Value for Vec<String> {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Ok(values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn encode(&self) -> Vec<String> {
        self.clone()
    }
}

/// Parses a number or a time; empty text is the default.
fn number<T: FromStr + Default>(
    name: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<T, QueryError> {
    if text.is_empty() {
        return Ok(T::default());
    }
    text.trim().parse().map_err(|_| QueryError::Value { name, value: text.to_owned(), expected })
}

impl Value for Option<i64> {
    fn parse(name: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        if values[0].is_empty() {
            return Ok(None);
        }
        number(name, values[0], "a whole number").map(Some)
    }

    fn encode(&self) -> Vec<String> {
        self.iter().map(i64::to_string).collect()
    }
}

impl Value for u16 {
    fn parse(name: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        number(name, values[0], "a whole number from 0 to 65535")
    }

    fn encode(&self) -> Vec<String> {
        if *self == 0 { Vec::new() } else { vec![self.to_string()] }
    }
}

impl Value for Filters {
    fn parse(_: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        Self::parse(values[0]).map_err(QueryError::Filters)
    }

    fn encode(&self) -> Vec<String> {
        if self.is_empty() { Vec::new() } else { vec![Self::encode(self)] }
    }
}

/// A point in time as `seconds[.fraction]` since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10⁹.
    pub nanoseconds: u32,
}

impl UnixTime {
    /// Nanoseconds since 1970.
    #[must_use]
    pub fn nanoseconds_since_epoch(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

/// A text that is not a point in time.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a time in seconds since 1970")]
pub struct ParseTimeError(String);

impl FromStr for UnixTime {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseTimeError(text.to_owned());
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        let seconds = seconds.parse().map_err(|_| refuse())?;
        let nanoseconds = format!("{fraction:0<9}").parse().map_err(|_| refuse())?;
        Ok(Self { seconds, nanoseconds })
    }
}

/// Zero and empty text are the same as none, as clients send them for "not given".
impl Value for Option<UnixTime> {
    fn parse(name: &'static str, values: &[&str]) -> Result<Self, QueryError> {
        let time: UnixTime = number(name, values[0], "a time in seconds since 1970")?;
        Ok(Some(time).filter(|time| *time != UnixTime::default()))
    }

    fn encode(&self) -> Vec<String> {
        self.iter().map(UnixTime::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        let time: UnixTime = "1136073845.000000001".parse().unwrap();
        assert_eq!(time, UnixTime { seconds: 1_136_073_845, nanoseconds: 1 });
        assert_eq!(time.to_string(), "1136073845.000000001");
        assert_eq!("5.25".parse::<UnixTime>().unwrap().nanoseconds, 250_000_000);
        for bad in ["", "x", "1.x", "1.0000000001", "2026-01-01T00:00:00Z", "1.-1"] {
            assert!(bad.parse::<UnixTime>().is_err(), "{bad}");
        }
    }
}
