//! The caller's terminal: raw mode that is always undone, its size, and the keys that detach.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use anyhow::{Result, bail};
use rustix::termios::{self, OptionalActions, Termios};

/// The terminal's settings before raw mode; taken by whoever restores them.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode for as long as this lives. [`restore`] undoes it from anywhere else: a panic, a signal, the end of main.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches the terminal on standard input to raw mode.
    pub(crate) fn enter() -> Result<Self> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *lock() = Some(before);
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            previous(panic);
        }));
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its settings back, if they were changed.
pub(crate) fn restore() {
    if let Some(before) = lock().take() {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Fails unless standard input is a terminal, which `-t` with `-i` needs.
pub(crate) fn require() -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("standard input is not a terminal: leave out -t");
    }
    Ok(())
}

/// Rows and columns of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// The sequence of keys that detaches, found in what is typed.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`: single characters, or `ctrl-` and a letter or one of `@[\]^_`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut sequence = Vec::new();
        for key in text.split(',').filter(|key| !key.is_empty()) {
            let byte = match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(letter), _) => match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => letter - b'a' + 1,
                    [letter @ (b'@' | b'['..=b'_')] => letter - b'@',
                    _ => bail!(
                        "invalid detach key {key:?}: expected ctrl- and one of a-z @ [ \\ ] ^ _"
                    ),
                },
                (None, [byte]) => *byte,
                _ => bail!("invalid detach key {key:?}: expected one character or ctrl-<letter>"),
            };
            sequence.push(byte);
        }
        Ok(Self { sequence, matched: 0 })
    }

    /// Looks at what was typed: the bytes to pass on, and whether the sequence is complete. A beginning of the
    /// sequence is held back until it is completed or turns out not to be one.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = usize::from(self.sequence.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_nothing_else_is_lost() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn detach_keys_are_parsed_as_dockers() {
        assert_eq!(DetachKeys::parse("a,ctrl-a,ctrl-@,ctrl-_").unwrap().sequence, [b'a', 1, 0, 31]);
        assert!(DetachKeys::parse("").unwrap().sequence.is_empty());
        for bad in ["ctrl-1", "ab", "ctrl-"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
