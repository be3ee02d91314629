//! Where in a JSON document a mistake is, as the path of the field that people know it by.

use std::fmt::Write as _;

/// The longest path that is told; a deeper one is cut.
const PATH_MAX: usize = 256;

/// One level of nesting.
enum Level {
    /// In an object, at this key.
    Object(String),
    /// In an array, at this index.
    Array(usize),
}

/// The path (`linux.namespaces[1].type`) of what ends at a line and column, both counted from one, as the parser tells
/// them. Empty at the top, or when the document breaks off earlier.
pub(super) fn path_at(bytes: &[u8], line: usize, column: usize) -> String {
    let start = if line <= 1 {
        0
    } else {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        ends.map(|(index, _)| index + 1).nth(line - 2).unwrap_or(bytes.len())
    };
    let end = start.saturating_add(column).min(bytes.len());
    render(&levels(&bytes[..end]))
}

/// The levels that are open at the end of `bytes`. What closes there is what the mistake is about, so its last key is
/// not.
fn levels(bytes: &[u8]) -> Vec<Level> {
    let mut levels = Vec::new();
    let mut expects_key = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => {
                levels.push(Level::Object(String::new()));
                expects_key = true;
            }
            b'[' => {
                levels.push(Level::Array(0));
                expects_key = false;
            }
            b'}' | b']' if at + 1 == bytes.len() => {
                levels.pop();
                return levels;
            }
            b'}' | b']' => {
                levels.pop();
                expects_key = false;
            }
            b',' => match levels.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                _ => expects_key = true,
            },
            b'"' => {
                let length = string_length(&bytes[at + 1..]);
                let text = &bytes[at + 1..at + 1 + length];
                if expects_key && let Some(Level::Object(key)) = levels.last_mut() {
                    *key = String::from_utf8_lossy(text).into_owned();
                    expects_key = false;
                }
                at += length + 1;
            }
            _ => {}
        }
        at += 1;
    }
    levels
}

/// Bytes up to the quotation mark that ends a string, or up to the end.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn render(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        if path.len() > PATH_MAX {
            break;
        }
        match level {
            Level::Object(key) if key.is_empty() => {}
            Level::Object(key) => {
                let shown: String = key.chars().filter(|letter| !letter.is_control()).collect();
                let dot = if path.is_empty() { "" } else { "." };
                // Writing to a string cannot fail.
                let _ = write!(path, "{dot}{shown}");
            }
            Level::Array(index) => {
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path.chars().take(PATH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found_by_their_fields() {
        for (text, path) in [
            (r#"{"a":{"b":[1,{"c":"x"#, "a.b[1].c"),
            (r#"{"a":1,"b":2"#, "b"),
            (r#"{"a":{"b":1}"#, "a"),
            (r#"{"a\"[{":{"b":1,"#, r#"a\"[{.b"#),
            (r#"[[1,2],[3"#, "[1][0]"),
            ("", ""),
            ("}]", ""),
        ] {
            assert_eq!(path_at(text.as_bytes(), 1, text.len()), path, "{text}");
        }
        assert_eq!(path_at(b"{\n \"a\": {\n  \"b\": 7\n", 3, 8), "a.b");
        assert_eq!(path_at(b"{}", 9, 9), "");
    }

    #[test]
    fn a_deep_document_gives_a_short_path() {
        let text = r#"{"aaaaaaaaaa":"#.repeat(10_000);
        assert!(path_at(text.as_bytes(), 1, text.len()).len() <= PATH_MAX);
    }
}
