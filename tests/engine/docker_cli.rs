//! The real docker command line does with brigd what it does with dockerd: what scripts read and test, that is, columns,
//! templates, messages and exit codes.

mod containers;
mod copying;
mod images;
mod networks;
mod system;
mod volumes;

use support::engine::Outcome;

/// Whether a text is a full identifier.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks that a command failed with this code, and that its message holds each of these texts.
#[track_caller]
fn refused(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for text in texts {
        assert!(outcome.stderr.contains(text), "{text:?} is not in {outcome:?}");
    }
}
