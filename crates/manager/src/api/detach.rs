//! The key sequence that detaches from a terminal while the process goes on.

use super::failure::Failure;

/// Ctrl-P, Ctrl-Q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Longest sequence accepted, in keys.
const MAX_KEYS: usize = 32;

/// Looks for the sequence in what a client types.
#[derive(Clone, Debug)]
pub(super) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of the keys were typed last, and held back.
    matched: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: DEFAULT.to_vec(), matched: 0 }
    }
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`: single characters, or `ctrl-` and one of `a`–`z`, `@`, `[`, `\`, `]`, `^`, `_`.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys.filter(|keys| keys.len() <= MAX_KEYS) {
            Some(keys) => Ok(Self { keys, matched: 0 }),
            None => Err(Failure::invalid(format!("invalid detach keys ({text}) provided"))),
        }
    }

    /// Passes `typed` on to `output`, but for the sequence; true when it is complete.
    pub(super) fn scan(&mut self, typed: &[u8], output: &mut Vec<u8>) -> bool {
        for byte in typed {
            while self.matched > 0 && self.keys[self.matched] != *byte {
                self.give_one_back(output);
            }
            if self.keys[self.matched] != *byte {
                output.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// What was held back when the input ends.
    pub(super) fn rest(&mut self) -> &[u8] {
        let matched = std::mem::take(&mut self.matched);
        &self.keys[..matched]
    }

    /// Releases held keys until the rest is again a beginning of the sequence.
    fn give_one_back(&mut self, output: &mut Vec<u8>) {
        let held = self.matched;
        let shorter =
            (0..held).rev().find(|length| self.keys[held - length..held] == self.keys[..*length]);
        self.matched = shorter.unwrap_or(0);
        output.extend_from_slice(&self.keys[..held - self.matched]);
    }
}

fn key(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        [prefix @ .., byte] if prefix.eq_ignore_ascii_case(b"ctrl-") => match byte {
            b'a'..=b'z' => Some(byte - b'a' + 1),
            b'@' => Some(0),
            b'[' | b'\\' | b']' | b'^' | b'_' => Some(byte - b'@'),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&str]) -> (String, bool) {
        let mut scanner = DetachKeys::parse(Some(keys)).unwrap();
        let mut output = Vec::new();
        let detached = pieces.iter().any(|piece| scanner.scan(piece.as_bytes(), &mut output));
        output.extend_from_slice(scanner.rest());
        (String::from_utf8(output).unwrap(), detached)
    }

    #[test]
    fn the_sequence_detaches_wherever_it_is_cut() {
        assert_eq!(typed("", &["ls\n\x10\x11rest"]), ("ls\n".into(), true));
        assert_eq!(typed("", &["ls\x10", "\x11"]), ("ls".into(), true));
        assert_eq!(typed("ctrl-x,a", &["\x18", "", "a"]), (String::new(), true));
        assert_eq!(typed("", &["\x10\x10\x11"]), ("\x10".into(), true));
    }

    #[test]
    fn what_only_begins_like_it_is_passed_on() {
        assert_eq!(typed("", &["\x10", "x\x10"]), ("\x10x\x10".into(), false));
        assert_eq!(typed("a,a,b", &["aaab"]), ("a".into(), true));
        assert_eq!(typed("a,b,a,c", &["ababac"]), ("ab".into(), true));
        assert_eq!(typed("a,a,b", &["aac"]), ("aac".into(), false));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b", "ctrl-é"] {
            assert!(DetachKeys::parse(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(DetachKeys::parse(None).unwrap().keys, DEFAULT);
        assert_eq!(DetachKeys::parse(Some("ctrl-@,ctrl-[,Z")).unwrap().keys, [0, 0x1b, b'Z']);
    }
}
