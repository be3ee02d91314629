//! The few moments the loop must not sleep past.

use std::time::{Duration, Instant};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A process has ended but something holds its streams open.
    Linger(u32),
    /// A client may have stopped reading.
    Stall(u32),
    /// A socket may accept again after descriptors ran out.
    Listen,
    /// An event may be published again.
    Publish,
    /// The shim has waited long enough for its last answers to be read.
    Leave,
}

/// Timers, unsorted: there are a handful.
#[derive(Debug, Default)]
pub(crate) struct Timers(Vec<(Instant, Timer)>);

impl Timers {
    /// Makes `timer` due after `delay`.
    pub(crate) fn set(&mut self, delay: Duration, timer: Timer) {
        self.0.push((Instant::now() + delay, timer));
    }

    /// How long until the next is due; `None` when there is none.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let next = self.0.iter().map(|timer| timer.0).min()?;
        // A microsecond more, so that the loop never wakes just before.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_micros(1))
    }

    /// Takes one that is due.
    pub(crate) fn take_due(&mut self) -> Option<Timer> {
        let now = Instant::now();
        let at = self.0.iter().position(|timer| timer.0 <= now)?;
        Some(self.0.swap_remove(at).1)
    }
}
