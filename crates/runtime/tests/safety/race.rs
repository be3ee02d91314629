//! Attacks that must be lucky: tried again and again while an attacker's thread keeps changing what they depend on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brig_runtime::protection::{Protection, without};

/// How long an attacker tries, in seconds.
const RACE_SECONDS: u64 = 6;
/// How often it tries at least, however slow the machine is.
const ATTEMPTS_MIN: u32 = 20;
/// How many times longer than planned it may take until every outcome that must be seen has been.
const PATIENCE: u32 = 20;

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The attack succeeded.
    Escaped,
    /// It did not, and the container was made with things as they should be.
    Confined,
    /// As [`Self::Confined`], after the attacker's change: the attempt and the change did meet.
    Met,
    /// The container was not made.
    Refused,
}

/// How many attempts ended how.
#[derive(Debug, Default)]
struct Tally {
    confined: u32,
    met: u32,
    refused: u32,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Escaped => {}
            Outcome::Confined => self.confined += 1,
            Outcome::Met => self.met += 1,
            Outcome::Refused => self.refused += 1,
        }
    }

    fn attempts(&self) -> u32 {
        self.confined + self.met + self.refused
    }

    /// Whether attempts hit both what the attacker shows and what it hides.
    fn is_enough(&self) -> bool {
        self.attempts() >= ATTEMPTS_MIN && self.confined > 0 && self.met + self.refused > 0
    }
}

/// Races `attempt` with an attacker that repeats `change`: first without the protections, until it escapes, then with
/// them, for the whole time.
pub(crate) fn raced(
    test: &str,
    protections: &[Protection],
    change: impl Fn() + Sync,
    mut attempt: impl FnMut() -> Outcome,
) {
    let stop = AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Ends the attacker when the attempts panic, too.
        let _stopper = Stopper(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change();
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let needed = without(protections, || until_escape(&mut attempt));
        let before = changes.load(Ordering::Relaxed);
        let tally = confined(&mut attempt);
        let changes = changes.load(Ordering::Relaxed) - before;
        eprintln!("{test}: escaped at attempt {needed} without; {tally:?} of {changes} changes");
        assert!(changes > u64::from(tally.attempts()), "the attacker was too slow to meet anybody");
    });
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn until_escape(attempt: &mut impl FnMut() -> Outcome) -> u32 {
    let deadline = Instant::now() + race_time() * PATIENCE;
    let mut tally = Tally::default();
    loop {
        match attempt() {
            Outcome::Escaped => return tally.attempts() + 1,
            outcome => tally.add(outcome),
        }
        assert!(
            Instant::now() < deadline,
            "nothing stands against it, and yet it fails: {tally:?}"
        );
    }
}

fn confined(attempt: &mut impl FnMut() -> Outcome) -> Tally {
    let start = Instant::now();
    let mut tally = Tally::default();
    while start.elapsed() < race_time() || !tally.is_enough() {
        let outcome = attempt();
        assert_ne!(outcome, Outcome::Escaped, "it got out, after {tally:?}");
        tally.add(outcome);
        assert!(start.elapsed() < race_time() * PATIENCE, "they hardly ever met: {tally:?}");
    }
    tally
}

fn race_time() -> Duration {
    let seconds = std::env::var("BRIG_RACE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(RACE_SECONDS))
}
