//! API versions: the `/v1.51` in front of a path.

use std::fmt;
use std::str::FromStr;

/// The version advertised, and assumed for requests without a version prefix.
pub const API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 51 };

/// The oldest version served: the one that the current Docker clients still accept from a daemon.
pub const MIN_API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// A version of the Engine API, ordered numerically (1.9 is older than 1.24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// The major number; 1 in every version published so far.
    pub major: u16,
    /// The minor number.
    pub minor: u16,
}

impl ApiVersion {
    /// The version `major.minor`.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A string that is not an API version.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an API version such as {API_VERSION}")]
pub struct ParseVersionError(String);

impl FromStr for ApiVersion {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<u16>().ok() } else { None }
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| ParseVersionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_print_and_order_numerically() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert_eq!(parse("1.51").unwrap(), API_VERSION);
        assert_eq!(API_VERSION.to_string(), "1.51");
        assert!(parse("1.9").unwrap() < MIN_API_VERSION);
        for bad in ["", "1", "1.", ".1", "1.5.1", "v1.5", "+1.2", "1.99999", "1.-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
