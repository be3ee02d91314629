//! JSON documents of bounded size and depth, read strictly.

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Nesting beyond this is refused; real documents stay below ten.
const DEPTH: usize = 64;

/// Parses `bytes` as the document called `what` after checking size and depth.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8], limit: usize) -> Result<T> {
    if bytes.len() > limit {
        return Err(Error::invalid(format!("parse {what}: larger than {limit} bytes")));
    }
    if depth(bytes) > DEPTH {
        return Err(Error::invalid(format!("parse {what}: nested deeper than {DEPTH}")));
    }
    serde_json::from_slice(bytes).map_err(|source| {
        Error::caused(crate::ErrorKind::InvalidInput, format!("parse {what}"), source)
    })
}

/// The deepest nesting of brackets outside strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(depth(br#"{"a":["[[[\"[[",{}]}"#), 3);
        let deep = "[".repeat(65) + &"]".repeat(65);
        assert!(parse::<serde_json::Value>("x", deep.as_bytes(), 1000).is_err());
    }
}
