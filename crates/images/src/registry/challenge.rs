//! `WWW-Authenticate`: RFC 9110, section 11.6.1. Lenient where registries are, bounded everywhere.

/// Longest header that is looked at, in bytes.
const LENGTH: usize = 8 << 10;
/// Most challenges and parameters.
const COUNT: usize = 32;

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter, by its lower-case name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Parses the value of a `WWW-Authenticate` header. What cannot be understood is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let Some(mut rest) = header.get(..header.len().min(LENGTH)) else { return challenges };
    while challenges.len() < COUNT {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (token, after) = split_token(rest);
        if token.is_empty() {
            break;
        }
        let after = after.trim_start();
        match after.strip_prefix('=') {
            // `name=value` belongs to the last challenge; a token alone starts a new one.
            Some(value) => {
                let (value, after) = split_value(value.trim_start());
                if let Some(challenge) = challenges.last_mut()
                    && challenge.parameters.len() < COUNT
                {
                    challenge.parameters.push((token.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => {
                let scheme = token.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: Vec::new() });
                rest = after;
            }
        }
    }
    challenges
}

fn split_token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A quoted string or a bare word, and what follows it.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bearer_and_basic_are_understood() {
        let header = r#"Bearer realm="https://auth.example/token",service="a, \"b\"",scope="repository:x:pull,push", basic realm=z"#;
        let parsed = parse(header);
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[0].parameter("realm"), Some("https://auth.example/token"));
        assert_eq!(parsed[0].parameter("service"), Some("a, \"b\""));
        assert_eq!(parsed[0].parameter("scope"), Some("repository:x:pull,push"));
        assert_eq!((parsed[1].scheme.as_str(), parsed[1].parameter("realm")), ("basic", Some("z")));
        assert_eq!(parse("Basic")[0].scheme, "basic");
        assert_eq!(parse("=, =\""), []);
    }

    proptest! {
        #[test]
        fn no_header_panics(header in "\\PC{0,200}") {
            parse(&header);
        }

        #[test]
        fn no_plausible_header_panics(header in "((Bearer|Basic)? ?[a-z]{0,3}[=,\" \\\\]{0,4}){0,8}") {
            parse(&header);
        }
    }
}
