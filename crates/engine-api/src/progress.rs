//! Progress messages: the JSON lines of pull, push, load and build.

use serde::{Deserialize, Serialize};

/// One line of progress. Only the fields that apply are present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressMessage {
    /// Output for people that stands by itself (load, build); ends in a newline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is going on, such as `Downloading`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it is.
    #[serde(rename = "progressDetail", default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<ProgressDetail>,
    /// `detail` drawn as a bar, for clients that do not draw it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// What it is about: a layer's short digest or a tag. Later lines with the same id replace earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the operation failed; the last line of a failed operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same, structured.
    #[serde(rename = "errorDetail", default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// Results for programs, such as the digest that was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes done, and bytes to do where known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes to do in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// A failure within a stream whose status was already sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A status code, or an exit code for a build step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// What failed.
    #[serde(default)]
    pub message: String,
}

impl ProgressMessage {
    /// A line about nothing in particular.
    pub fn status(status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..Self::default() }
    }

    /// A line about `id`, with an empty detail as Docker writes it.
    pub fn about(id: impl Into<String>, status: impl Into<String>) -> Self {
        let detail = Some(ProgressDetail::default());
        Self { id: Some(id.into()), status: Some(status.into()), detail, ..Self::default() }
    }

    /// A line about `id` that counts bytes.
    pub fn bytes(
        id: impl Into<String>,
        status: impl Into<String>,
        current: u64,
        total: Option<u64>,
    ) -> Self {
        let detail = ProgressDetail { current: Some(current), total };
        Self {
            id: Some(id.into()),
            status: Some(status.into()),
            detail: Some(detail),
            progress: Some(bar(current, total)),
            ..Self::default()
        }
    }

    /// Output for people.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// The last line of a failed operation.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        let error_detail = Some(ErrorDetail { code: None, message: message.clone() });
        Self { error: Some(message), error_detail, ..Self::default() }
    }

    /// A result for programs.
    #[must_use]
    pub fn aux(value: serde_json::Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }
}

/// `[=====>    ]  1.2MB/3MB`, 50 columns between the brackets.
fn bar(current: u64, total: Option<u64>) -> String {
    const COLUMNS: usize = 50;
    let Some(total) = total.filter(|total| *total > 0 && current <= *total) else {
        return decimal_size(current);
    };
    let filled = usize::try_from(u128::from(current) * COLUMNS as u128 / u128::from(total));
    let filled = filled.unwrap_or(COLUMNS).min(COLUMNS);
    let head = if filled < COLUMNS { ">" } else { "" };
    let blank = COLUMNS - filled - head.len();
    format!(
        "[{}{head}{}] {:>8}/{}",
        "=".repeat(filled),
        " ".repeat(blank),
        decimal_size(current),
        decimal_size(total)
    )
}

/// A size in powers of 1000 with four significant digits, as Docker prints them.
fn decimal_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut divisor = 1u64;
    let mut unit = 0;
    while bytes / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    let whole = bytes / divisor;
    let decimals = match whole {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    let scale = 10u64.pow(decimals);
    let fraction = u128::from(bytes % divisor) * u128::from(scale) / u128::from(divisor);
    let digits = format!("{fraction:0width$}", width = decimals as usize);
    match digits.trim_end_matches('0') {
        "" => format!("{whole}{}", UNITS[unit]),
        digits => format!("{whole}.{digits}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_dockers_keys_and_no_others() {
        let line = |message: &ProgressMessage| serde_json::to_string(message).unwrap();
        assert_eq!(line(&ProgressMessage::status("Pulling")), r#"{"status":"Pulling"}"#);
        assert_eq!(
            line(&ProgressMessage::about("abc", "Pull complete")),
            r#"{"status":"Pull complete","progressDetail":{},"id":"abc"}"#
        );
        assert_eq!(
            line(&ProgressMessage::failure("no space")),
            r#"{"error":"no space","errorDetail":{"message":"no space"}}"#
        );
        let half = ProgressMessage::bytes("abc", "Downloading", 512_000, Some(1_024_000));
        let bar = format!("[{}>{}]    512kB/1.024MB", "=".repeat(25), " ".repeat(24));
        assert_eq!(half.progress.unwrap(), bar);
    }

    #[test]
    fn sizes_are_decimal_with_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345_678, "12.34MB"),
            (u64::MAX, "18.44EB"),
        ] {
            assert_eq!(decimal_size(bytes), text);
        }
    }
}
