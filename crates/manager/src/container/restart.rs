//! When a container that ended is started again.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::metadata::{ContainerRecord, StateRecord};
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
    /// Like `OnFailure`, and also end and restart it when its health check finds it unhealthy. Docker has no such policy.
    OnUnhealthy(u32),
}

impl Policy {
    /// The policy of a container, whose record was checked when it was made.
    pub(crate) fn of(record: &ContainerRecord) -> Self {
        let policy = record.host_config.restart_policy.as_ref();
        Self::parse(policy, record.restarts_unhealthy).unwrap_or_default()
    }

    /// Checks the policy of a request; `on_unhealthy` says what `on-failure` means there (see
    /// [`Restarting`](brig_engine_api::restart::Restarting)).
    pub(crate) fn parse(policy: Option<&RestartPolicy>, on_unhealthy: bool) -> Result<Self> {
        let Some(policy) = policy else { return Ok(Self::No) };
        let count = policy.maximum_retry_count.unwrap_or(0);
        let counted = match policy.name {
            Some(RestartPolicyNameEnum::ON_FAILURE) => {
                let times = u32::try_from(count).map_err(|_| {
                    Error::invalid("invalid restart policy: maximum retry count cannot be negative")
                })?;
                return Ok(if on_unhealthy {
                    Self::OnUnhealthy(times)
                } else {
                    Self::OnFailure(times)
                });
            }
            None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Self::No,
            Some(RestartPolicyNameEnum::ALWAYS) => Self::Always,
            Some(RestartPolicyNameEnum::UNLESS_STOPPED) => Self::UnlessStopped,
        };
        if count != 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure' \
                 and 'on-unhealthy'",
            ));
        }
        Ok(counted)
    }

    /// Checks that the policy fits a container with a health check or without.
    pub(crate) fn check(self, has_health_check: bool) -> Result<()> {
        if matches!(self, Self::OnUnhealthy(_)) && !has_health_check {
            return Err(Error::invalid(
                "restart policy 'on-unhealthy' needs a health check, and neither the request nor the image has one: give \
                 one (--health-cmd), or use 'on-failure'",
            ));
        }
        Ok(())
    }

    /// Whether a container that just ended is started again.
    pub(crate) fn restarts(self, state: &StateRecord) -> bool {
        let left = |times| times == 0 || state.restart_count < times;
        let failed = state.exit_code != 0;
        !state.stopped_by_hand
            && match self {
                Self::No => false,
                Self::Always | Self::UnlessStopped => true,
                Self::OnFailure(times) => failed && left(times),
                Self::OnUnhealthy(times) => (failed || state.ended_for_health()) && left(times),
            }
    }

    /// Whether a container that runs and is unhealthy is ended, to be started again.
    pub(crate) fn ends_unhealthy(self, state: &StateRecord) -> bool {
        match self {
            Self::OnUnhealthy(times) => times == 0 || state.restart_count < times,
            _ => false,
        }
    }

    /// Whether a container that does not run is started when the engine comes up.
    pub(crate) fn starts_with_engine(self, stopped_by_hand: bool) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_hand,
            Self::No | Self::OnFailure(_) | Self::OnUnhealthy(_) => false,
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
    use crate::container::death::{DeathRecord, SignalSender};

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
            (Policy::OnUnhealthy(2), 1, 1, true),
            (Policy::OnUnhealthy(2), 0, 1, false),
        ];
        for (policy, exit_code, restart_count, restarts) in rows {
            let mut state = StateRecord { exit_code, restart_count, ..StateRecord::default() };
            assert_eq!(policy.restarts(&state), restarts, "{policy:?} {exit_code} {restart_count}");
            state.stopped_by_hand = true;
            assert!(!policy.restarts(&state), "{policy:?} stopped by hand");
        }
        assert!(Policy::Always.starts_with_engine(true));
        assert!(!Policy::UnlessStopped.starts_with_engine(true));
        assert!(Policy::UnlessStopped.starts_with_engine(false));
    }

    #[test]
    fn a_count_is_only_for_on_failure() {
        let parse = |name, count| {
            let policy = RestartPolicy { name: Some(name), maximum_retry_count: Some(count) };
            Policy::parse(Some(&policy), false)
        };
        assert!(parse(RestartPolicyNameEnum::ALWAYS, 3).is_err());
        assert!(parse(RestartPolicyNameEnum::ON_FAILURE, -1).is_err());
        assert_eq!(
            parse(RestartPolicyNameEnum::ON_FAILURE, 3).expect("good"),
            Policy::OnFailure(3)
        );
        assert_eq!(Policy::parse(None, false).expect("none"), Policy::No);
    }

    #[test]
    fn an_unhealthy_container_is_restarted_while_tries_are_left_however_it_ends() {
        let policy = Policy::OnUnhealthy(2);
        let death = DeathRecord { sender: Some(SignalSender::Health), ..DeathRecord::default() };
        let mut state = StateRecord { death: Some(death), ..StateRecord::default() };
        assert!(policy.restarts(&state), "it ended with 0");
        assert!(policy.ends_unhealthy(&state));
        assert!(!Policy::OnFailure(2).ends_unhealthy(&state));
        state.restart_count = 2;
        assert!(!policy.restarts(&state) && !policy.ends_unhealthy(&state));
        assert!(policy.check(false).is_err() && policy.check(true).is_ok());
    }
}
