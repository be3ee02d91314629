//! `org.systemd.property.NAME` annotations: properties of the scope beyond those that follow from the configuration.
//!
//! Values are written in GVariant's text format, of which these types are known: booleans, numbers with an optional type
//! (`uint64 5`; plain ones are int32), texts in quotes, and arrays of texts. A name that ends in `Sec` is of seconds, which
//! systemd takes as `USec`.

use std::collections::BTreeMap;

use super::bus::Value;
use crate::error::{Error, ErrorKind, Result};

/// What the names of such annotations begin with.
pub(crate) const PREFIX: &str = "org.systemd.property.";
/// Longer than any name that systemd has.
const NAME_MAX: usize = 64;
const VALUE_MAX: usize = 4096;
const ARRAY_MAX: usize = 64;

/// Which container the scope is: nobody else may say so.
const OWN: [&str; 6] = ["PIDs", "Slice", "Delegate", "DevicePolicy", "DeviceAllow", "BPFProgram"];

/// Reads the properties among annotations.
///
/// # Errors
/// `InvalidInput` for names and values that systemd could not take, and for properties that the runtime sets itself.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let invalid = |why: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("annotation {key:?}: {why}")))
        };
        let letters = name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if !letters || !(3..=NAME_MAX).contains(&name.len()) {
            return invalid("not the name of a systemd property");
        }
        if OWN.contains(&name) {
            return invalid("the runtime sets this property itself");
        }
        if text.len() > VALUE_MAX || text.chars().any(char::is_control) {
            return invalid("its value is too long or has control characters");
        }
        let Some(value) = parse(text) else {
            return invalid(
                "its value is not one of GVariant's text format, such as 'text' or uint64 5",
            );
        };
        match (name.strip_suffix("Sec"), value) {
            (Some(stem), value) if !stem.ends_with('U') => {
                let Some(microseconds) = microseconds(&value) else {
                    return invalid("its value is no number of seconds");
                };
                found.push((format!("{stem}USec"), Value::U64(microseconds)));
            }
            (_, value) => found.push((name.to_owned(), value)),
        }
    }
    Ok(found)
}

fn microseconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::I32(number) => u64::try_from(*number).ok()?,
        Value::U32(number) => u64::from(*number),
        Value::I64(number) => u64::try_from(*number).ok()?,
        Value::U64(number) => *number,
        _ => return None,
    };
    seconds.checked_mul(1_000_000)
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if text.starts_with('[') {
        return array(text);
    }
    if let Some((string, "")) = quoted(text) {
        return Some(Value::Text(string));
    }
    match text.split_once(' ') {
        None => text.parse().ok().map(Value::I32),
        Some(("int32", number)) => number.trim().parse().ok().map(Value::I32),
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::U32),
        Some(("int64", number)) => number.trim().parse().ok().map(Value::I64),
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::U64),
        Some(_) => None,
    }
}

fn array(text: &str) -> Option<Value> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    let mut texts = Vec::new();
    while !rest.is_empty() && texts.len() < ARRAY_MAX {
        let (string, after) = quoted(rest)?;
        texts.push(string);
        rest = match after.trim_start() {
            "" => "",
            after => after.strip_prefix(',')?.trim_start(),
        };
    }
    // The type of an empty array cannot be told.
    (rest.is_empty() && !texts.is_empty()).then_some(Value::Texts(texts))
}

/// A text in single or double quotes, in which a backslash escapes the next character, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut string = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => string.push(characters.next()?.1),
            other if other == quote => return Some((string, &text[at + other.len_utf8()..])),
            other => string.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Vec<(String, Value)>> {
        properties(&BTreeMap::from([
            (format!("{PREFIX}{name}"), value.to_owned()),
            ("other".to_owned(), "ignored".to_owned()),
        ]))
    }

    #[test]
    fn values_have_the_types_of_gvariant() {
        for (name, text, wanted, value) in [
            ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::U64(123_456_789)),
            ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::U64(5_000_000)),
            ("CollectMode", "'inactive'", "CollectMode", Value::Text("inactive".into())),
            ("Description", r#""it's \"x\"""#, "Description", Value::Text("it's \"x\"".into())),
            ("SendSIGHUP", "true", "SendSIGHUP", Value::Bool(true)),
            ("KillSignal", "int32 9", "KillSignal", Value::I32(9)),
            (
                "After",
                "['a.service', 'b.service']",
                "After",
                Value::Texts(vec!["a.service".into(), "b.service".into()]),
            ),
        ] {
            assert_eq!(one(name, text).unwrap(), [(wanted.to_owned(), value)], "{text}");
        }
    }

    /// R11
    #[test]
    fn what_would_inject_something_is_refused() {
        for (name, text) in [
            ("Slice", "'system.slice'"),
            ("PIDs", "uint32 1"),
            ("DeviceAllow", "['/dev/sda']"),
            ("Exec Start", "'x'"),
            ("x", "true"),
            ("Description", "'a\nb'"),
            ("Description", "'unfinished"),
            ("Description", "'a' 'b'"),
            ("After", "[]"),
            ("After", "['a' 'b']"),
            ("TimeoutStopSec", "'5'"),
            ("TimeoutStopSec", "-5"),
            ("KillSignal", "byte 9"),
            ("Description", &format!("'{}'", "x".repeat(5000))),
        ] {
            let error = one(name, text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {text}");
        }
    }
}
