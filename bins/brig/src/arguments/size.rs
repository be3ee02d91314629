//! Sizes: `512`, `64m`, `1.5g`, in binary units, as docker reads memory sizes.

use anyhow::{Context as _, Result, bail};

/// Parses a size in bytes.
pub(crate) fn bytes(text: &str) -> Result<i64> {
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = trimmed[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => bail!("invalid size {text:?}: the unit is one of b, k, m, g, t, p"),
    };
    scale(digits.trim(), 1u64 << shift).with_context(|| format!("invalid size {text:?}"))
}

/// As [`bytes`], but `-1` means unlimited.
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// A decimal number of CPUs in billionths.
pub(crate) fn nano_cpus(text: &str) -> Result<i64> {
    scale(text.trim(), 1_000_000_000).with_context(|| format!("invalid number of CPUs {text:?}"))
}

/// A non-negative decimal number times `factor`, without floating point.
fn scale(digits: &str, factor: u64) -> Result<i64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 12 {
        bail!("expected a number such as 1.5");
    }
    let parse = |part: &str| -> Result<u128> {
        if part.is_empty() {
            Ok(0)
        } else {
            part.parse::<u64>().map(u128::from).context("expected a number such as 1.5")
        }
    };
    let power = 10u128.pow(u32::try_from(fraction.len())?);
    let scaled = parse(whole)? * u128::from(factor) + parse(fraction)? * u128::from(factor) / power;
    i64::try_from(scaled).context("it is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2kb", 2048),
            ("10b", 10),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3", "99999999999p", "1 000"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(nano_cpus("0.5").unwrap(), 500_000_000);
        assert_eq!(nano_cpus("2").unwrap(), 2_000_000_000);
        assert_eq!(nano_cpus(".25").unwrap(), 250_000_000);
        assert!(nano_cpus("one").is_err());
    }
}
