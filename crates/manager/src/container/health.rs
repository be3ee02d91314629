//! Health checks: a command run in the container now and then, by the shim like any exec.
//!
//! ```text
//!            probe succeeds
//! starting ────────────────▶ healthy ◀──────────┐
//!    │  retries failures (after the start       │ probe succeeds
//!    │  period)                │ retries failures│
//!    └───────────────────▶ unhealthy ◀──────────┘
//! ```
//!
//! They pause while the engine is away and go on when it has adopted the container. Probes of one container never
//! overlap.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Request, Shared, exec, now};
use crate::error::{Error, Result};
use crate::metadata::{ContainerRecord, HealthRecord};
use crate::models::ContainerConfig;

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// The shortest time that may be asked for.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// Probes remembered.
const LOG_ENTRIES: usize = 5;
/// Bytes remembered of each probe's output.
const OUTPUT_BYTES_MAX: usize = 4096;

/// A running health check; ends when dropped.
#[derive(Debug)]
pub(super) struct Probe {
    _ending: DropGuard,
}

#[derive(Debug, Clone)]
struct Plan {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

/// Checks a container's health check.
pub(super) fn check(config: &ContainerConfig) -> Result<()> {
    plan(config).map(drop)
}

/// The container has a health check.
pub(super) fn is_wanted(config: &ContainerConfig) -> bool {
    plan(config).is_ok_and(|plan| plan.is_some())
}

fn plan(config: &ContainerConfig) -> Result<Option<Plan>> {
    let Some(health) = &config.healthcheck else { return Ok(None) };
    let Some(test) = health.test.as_deref().filter(|test| !test.is_empty()) else {
        return Ok(None);
    };
    let shell = config.shell.clone().filter(|shell| !shell.is_empty());
    let command = match (test[0].as_str(), &test[1..]) {
        ("NONE", _) => return Ok(None),
        ("CMD", command) if !command.is_empty() => command.to_vec(),
        ("CMD-SHELL", [line]) => {
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            command.push(line.clone());
            command
        }
        (kind, _) => {
            return Err(Error::invalid(format!(
                "Unknown healthcheck type {kind}, or it has no command"
            )));
        }
    };
    Ok(Some(Plan {
        command,
        interval: duration("Interval", health.interval, INTERVAL)?,
        timeout: duration("Timeout", health.timeout, TIMEOUT)?,
        start_period: duration("StartPeriod", health.start_period, Duration::ZERO)?,
        start_interval: duration("StartInterval", health.start_interval, START_INTERVAL)?,
        retries: match health.retries {
            None | Some(0) => RETRIES,
            Some(count) if count > 0 => count,
            Some(_) => return Err(Error::invalid("Retries in Healthcheck cannot be negative")),
        },
    }))
}

fn duration(what: &str, value: Option<i64>, default: Duration) -> Result<Duration> {
    let Some(nanoseconds) = value.filter(|value| *value != 0) else { return Ok(default) };
    let duration = u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .ok()
        .filter(|time| *time >= DURATION_MIN);
    duration.ok_or_else(|| Error::invalid(format!("{what} in Healthcheck cannot be less than 1ms")))
}

/// Starts the health check of a container that runs, if it has one.
pub(super) fn start(
    shared: &Arc<Shared>,
    record: &ContainerRecord,
    own: mpsc::WeakSender<Request>,
) -> Option<Probe> {
    let plan = plan(&record.config).ok().flatten()?;
    let ending = CancellationToken::new();
    let (until, closing) = (ending.clone(), shared.closing.clone());
    let (again, id) = (Arc::clone(shared), record.id.clone());
    let health = record.state.health.clone().unwrap_or_default();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            () = closing.cancelled() => {}
            () = run(&again, &id, &plan, health, own) => {}
        }
    });
    Some(Probe { _ending: ending.drop_guard() })
}

async fn run(
    shared: &Arc<Shared>,
    id: &str,
    plan: &Plan,
    mut health: HealthRecord,
    own: mpsc::WeakSender<Request>,
) {
    let started = Instant::now();
    if health.status.is_empty() {
        health.status = "starting".into();
    }
    loop {
        let starting = health.status == "starting" && started.elapsed() < plan.start_period;
        tokio::time::sleep(if starting {
            plan.start_interval.min(plan.interval)
        } else {
            plan.interval
        })
        .await;
        let begun = now();
        let probed =
            exec::probe(shared, id, plan.command.clone(), plan.timeout, OUTPUT_BYTES_MAX).await;
        let (code, output) = probed.unwrap_or_else(|error| (-1, error.report()));
        let in_start_period = started.elapsed() < plan.start_period;
        note(&mut health, code, in_start_period, plan.retries);
        if health.log.len() == LOG_ENTRIES {
            health.log.remove(0);
        }
        health.log.push((begun, now(), code.into(), output));
        let Some(own) = own.upgrade() else { return };
        if own.send(Request::Health(health.clone())).await.is_err() {
            return;
        }
    }
}

fn note(health: &mut HealthRecord, code: i32, in_start_period: bool, retries: i64) {
    if code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".into();
        return;
    }
    if in_start_period && health.status == "starting" {
        return;
    }
    health.failing_streak += 1;
    if health.failing_streak >= retries {
        health.status = "unhealthy".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::HealthConfig;

    fn config(test: &[&str]) -> ContainerConfig {
        let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
        ContainerConfig {
            healthcheck: Some(HealthConfig { test, ..HealthConfig::default() }),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn commands_come_in_two_forms() {
        let command = |test: &[&str]| plan(&config(test)).map(|plan| plan.map(|plan| plan.command));
        assert_eq!(
            command(&["CMD", "a", "b"]).expect("good"),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            command(&["CMD-SHELL", "a b"]).expect("good").expect("a plan")[..2],
            ["/bin/sh", "-c"]
        );
        assert_eq!(command(&["NONE"]).expect("good"), None);
        assert!(command(&["CMD"]).is_err());
        assert!(command(&["RUN", "x"]).is_err());
    }

    #[test]
    fn failures_count_only_after_the_start_period_and_a_success_clears_them() {
        let mut health = HealthRecord { status: "starting".into(), ..HealthRecord::default() };
        note(&mut health, 1, true, 2);
        assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 0));
        note(&mut health, 1, false, 2);
        note(&mut health, 1, false, 2);
        assert_eq!((health.status.as_str(), health.failing_streak), ("unhealthy", 2));
        note(&mut health, 0, false, 2);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
    }
}
