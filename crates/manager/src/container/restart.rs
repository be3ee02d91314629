//! When a container that ended is started again.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::models::{RestartPolicy, RestartPolicyNameEnum};

/// The first pause before a restart; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A container that ran this long is taken to be well, and its pause starts over.
const RAN_WELL: Duration = Duration::from_secs(10);

/// A checked restart policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Leave it.
    #[default]
    No,
    /// Restart it whatever its exit code, also after a restart of the engine.
    Always,
    /// Like `Always`, unless it was stopped by hand before the engine went.
    UnlessStopped,
    /// Restart it when its exit code is not zero, at most so many times (0: without limit).
    OnFailure(u32),
}

impl Policy {
    /// Checks the policy of a request.
    pub(crate) fn parse(policy: Option<&RestartPolicy>) -> Result<Self> {
        let Some(policy) = policy else { return Ok(Self::No) };
        let count = policy.maximum_retry_count.unwrap_or(0);
        let counted = match policy.name {
            Some(RestartPolicyNameEnum::ON_FAILURE) => {
                let times = u32::try_from(count).map_err(|_| {
                    Error::invalid("invalid restart policy: maximum retry count cannot be negative")
                })?;
                return Ok(Self::OnFailure(times));
            }
            None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Self::No,
            Some(RestartPolicyNameEnum::ALWAYS) => Self::Always,
            Some(RestartPolicyNameEnum::UNLESS_STOPPED) => Self::UnlessStopped,
        };
        if count != 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(counted)
    }

    /// Whether a container that just ended by itself is started again.
    pub(crate) fn restarts_after(self, exit_code: i32, restarts_so_far: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(times) => exit_code != 0 && (times == 0 || restarts_so_far < times),
        }
    }

    /// Whether a container that does not run is started when the engine comes up.
    pub(crate) fn starts_with_engine(self, stopped_by_hand: bool) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_hand,
            Self::No | Self::OnFailure(_) => false,
        }
    }
}

/// The growing pause between restarts of one container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BackOff {
    last: Option<Duration>,
}

impl BackOff {
    /// The pause before the next restart of a container that ran for `ran`.
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if ran < RAN_WELL => (last * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_start_over_after_a_good_run() {
        let mut back_off = BackOff::default();
        let pauses: Vec<u128> =
            (0..12).map(|_| back_off.next(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(back_off.next(Duration::from_secs(11)), PAUSE_MIN);
    }

    #[test]
    fn policies_decide_as_docker_does() {
        let rows = [
            (Policy::No, 1, 0, false),
            (Policy::Always, 0, 99, true),
            (Policy::UnlessStopped, 0, 0, true),
            (Policy::OnFailure(0), 1, 1000, true),
            (Policy::OnFailure(0), 0, 0, false),
            (Policy::OnFailure(2), 1, 1, true),
            (Policy::OnFailure(2), 1, 2, false),
        ];
        for (policy, exit_code, so_far, restarts) in rows {
            assert_eq!(
                policy.restarts_after(exit_code, so_far),
                restarts,
                "{policy:?} {exit_code} {so_far}"
            );
        }
        assert!(Policy::Always.starts_with_engine(true));
        assert!(!Policy::UnlessStopped.starts_with_engine(true));
        assert!(Policy::UnlessStopped.starts_with_engine(false));
    }

    #[test]
    fn a_count_is_only_for_on_failure() {
        let policy =
            |name, count| RestartPolicy { name: Some(name), maximum_retry_count: Some(count) };
        assert!(Policy::parse(Some(&policy(RestartPolicyNameEnum::ALWAYS, 3))).is_err());
        assert!(Policy::parse(Some(&policy(RestartPolicyNameEnum::ON_FAILURE, -1))).is_err());
        assert_eq!(
            Policy::parse(Some(&policy(RestartPolicyNameEnum::ON_FAILURE, 3))).expect("good"),
            Policy::OnFailure(3)
        );
        assert_eq!(Policy::parse(None).expect("none"), Policy::No);
    }
}
