//! Telling a slow peer from one that only pretends to send.

use std::time::{Duration, Instant};

/// Slower than this a transfer is as good as stalled: a modem of 1995 was ten times as fast.
const SLOWEST_BYTES_PER_SECOND: f64 = 256.0;

/// Counts what arrives in each stretch of the stall time.
#[derive(Debug)]
pub(super) struct Pace {
    stall: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall, since: Instant::now(), bytes: 0 }
    }

    /// Counts bytes. False when those of a whole stretch were too few.
    pub(super) fn keeps_up(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        if self.since.elapsed() < self.stall {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "a threshold needs no precision")]
        let enough = self.bytes as f64 >= SLOWEST_BYTES_PER_SECOND * self.stall.as_secs_f64();
        (self.since, self.bytes) = (Instant::now(), 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_stretch_of_drops_is_too_slow() {
        let mut pace = Pace::new(Duration::from_secs(3600));
        assert!(pace.keeps_up(1), "the stretch is not over");
        pace = Pace::new(Duration::ZERO);
        assert!(pace.keeps_up(0), "no time asks for nothing");
        pace.stall = Duration::from_nanos(1);
        assert!(pace.keeps_up(1));
        pace = Pace { stall: Duration::from_secs(1), since: Instant::now(), bytes: 0 };
        pace.since = pace.since.checked_sub(Duration::from_secs(2)).unwrap();
        assert!(!pace.keeps_up(255));
        assert!(pace.keeps_up(1), "a new stretch begins");
    }
}
