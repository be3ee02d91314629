//! Sizes, ages and shortened names, as docker words them.

use time::OffsetDateTime;

/// A size in decimal units with four digits: `155.8MB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// A size in binary units with four digits: `1.5GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// `size` of what may be negative on the wire, which means unknown.
pub(crate) fn signed_size(bytes: i64) -> String {
    u64::try_from(bytes).map_or_else(|_| "N/A".to_owned(), size)
}

#[expect(clippy::cast_precision_loss, reason = "three or four digits are shown")]
fn scaled(bytes: u64, base: u64, units: &[&str], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base as f64 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    let whole = format!("{value:.0}").len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// How long ago a Unix time was: `3 minutes ago`.
pub(crate) fn ago(unix_seconds: i64) -> String {
    let age = OffsetDateTime::now_utc().unix_timestamp().saturating_sub(unix_seconds);
    format!("{} ago", duration(u64::try_from(age).unwrap_or(0)))
}

/// A duration in words, coarser the longer it is.
pub(crate) fn duration(seconds: u64) -> String {
    let minutes = seconds / 60;
    let hours = (minutes + 30) / 60;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The first twelve digits of an ID, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, digits)| digits);
    bare.get(..12).unwrap_or(bare)
}

/// A text cut to `width` characters, with an ellipsis when it was longer.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// A Unix time as docker prints it in lists.
pub(crate) fn date(unix_seconds: i64) -> String {
    let Ok(date) = OffsetDateTime::from_unix_timestamp(unix_seconds) else { return String::new() };
    let form = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC"
    );
    date.format(form).unwrap_or_default()
}

/// A Unix time as RFC 3339 with nanoseconds.
pub(crate) fn rfc3339(nanoseconds: i128) -> String {
    let Ok(date) = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) else {
        return String::new();
    };
    let form = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z"
    );
    date.format(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_docker_s_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1500, "1.5kB"),
            (155_819_520, "156MB"),
            (12_345_678, "12.3MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (bytes, text) in
            [(0, "0B"), (1536, "1.5KiB"), (268_435_456, "256MiB"), (25_200_000_000, "23.47GiB")]
        {
            assert_eq!(binary_size(bytes), text);
        }
        assert_eq!(signed_size(-1), "N/A");
    }

    #[test]
    fn durations_are_docker_s_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 15, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn names_are_shortened() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abc", 4), "abc");
    }
}
