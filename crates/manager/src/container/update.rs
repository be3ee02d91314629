//! Changing a container's limits and restart policy.

use brig_engine_api::restart::Restarting;

use super::restart::Policy;
use super::{health, spec};
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::models::{ContainerUpdateBody, HostConfig};

/// What an update changes in a record.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) host: HostConfig,
    pub(crate) restarts_unhealthy: bool,
}

/// The host configuration with the changes of `update`, checked as a whole. Zero and absent mean "leave it".
pub(crate) fn apply(
    record: &ContainerRecord,
    update: Restarting<ContainerUpdateBody>,
) -> Result<Changes> {
    let Restarting { body: update, on_unhealthy } = update;
    refuse(&update)?;
    let mut changed = record.host_config.clone();
    let mut restarts_unhealthy = record.restarts_unhealthy;
    if update.restart_policy.as_ref().is_some_and(|policy| policy.name.is_some()) {
        let policy = Policy::parse(update.restart_policy.as_ref(), on_unhealthy)?;
        policy.check(health::is_wanted(&record.config))?;
        if changed.auto_remove == Some(true) && policy != Policy::No {
            return Err(Error::conflict(
                "restart policy cannot be updated because AutoRemove is enabled",
            ));
        }
        changed.restart_policy = update.restart_policy;
        restarts_unhealthy = on_unhealthy;
    }
    let number = |field: &mut Option<i64>, value: Option<i64>| {
        if let Some(value) = value.filter(|value| *value != 0) {
            *field = Some(value);
        }
    };
    if update.nano_cpus.is_some_and(|nanos| nanos != 0) {
        (changed.cpu_period, changed.cpu_quota) = (None, None);
    }
    number(&mut changed.nano_cpus, update.nano_cpus);
    number(&mut changed.cpu_shares, update.cpu_shares);
    number(&mut changed.cpu_period, update.cpu_period);
    number(&mut changed.cpu_quota, update.cpu_quota);
    number(&mut changed.cpu_realtime_period, update.cpu_realtime_period);
    number(&mut changed.cpu_realtime_runtime, update.cpu_realtime_runtime);
    number(&mut changed.memory, update.memory);
    number(&mut changed.memory_swap, update.memory_swap);
    number(&mut changed.memory_reservation, update.memory_reservation);
    number(&mut changed.pids_limit, update.pids_limit);
    if let Some(weight) = update.blkio_weight.filter(|weight| *weight != 0) {
        changed.blkio_weight = Some(weight);
    }
    for (field, value) in [
        (&mut changed.cpuset_cpus, update.cpuset_cpus),
        (&mut changed.cpuset_mems, update.cpuset_mems),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            *field = Some(value);
        }
    }
    let swap_too_small = changed
        .memory
        .zip(changed.memory_swap)
        .is_some_and(|(memory, swap)| swap > 0 && swap < memory);
    if swap_too_small {
        return Err(Error::invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    spec::resources(&changed)?;
    Ok(Changes { host: changed, restarts_unhealthy })
}

fn refuse(update: &ContainerUpdateBody) -> Result<()> {
    let lists = [
        (
            "BlkioWeightDevice",
            update.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "BlkioDeviceReadBps",
            update.blkio_device_read_bps.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "BlkioDeviceWriteBps",
            update.blkio_device_write_bps.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "BlkioDeviceReadIOps",
            update.blkio_device_read_iops.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "BlkioDeviceWriteIOps",
            update.blkio_device_write_iops.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        ("Devices", update.devices.as_ref().is_some_and(|list| !list.is_empty())),
        ("DeviceRequests", update.device_requests.as_ref().is_some_and(|list| !list.is_empty())),
    ];
    match lists.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::unsupported(format!("update of {name} is not built"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{HealthConfig, RestartPolicy, RestartPolicyNameEnum};

    fn record(host_config: HostConfig) -> ContainerRecord {
        ContainerRecord { host_config, ..ContainerRecord::default() }
    }

    #[test]
    fn what_is_absent_or_zero_stays() {
        let host =
            HostConfig { memory: Some(64 << 20), cpu_shares: Some(512), ..HostConfig::default() };
        let update = ContainerUpdateBody {
            cpu_shares: Some(0),
            pids_limit: Some(9),
            ..ContainerUpdateBody::default()
        };
        let changed = apply(&record(host), update.into()).expect("good").host;
        assert_eq!(
            (changed.memory, changed.cpu_shares, changed.pids_limit),
            (Some(64 << 20), Some(512), Some(9))
        );
    }

    #[test]
    fn impossible_combinations_are_refused() {
        let host = HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            ..HostConfig::default()
        };
        let update =
            ContainerUpdateBody { memory: Some(256 << 20), ..ContainerUpdateBody::default() };
        assert!(apply(&record(host), update.into()).is_err());
    }

    #[test]
    fn a_policy_that_restarts_the_unhealthy_comes_and_goes_with_an_update() {
        let update = |name: Option<RestartPolicyNameEnum>, on_unhealthy| Restarting {
            body: ContainerUpdateBody {
                restart_policy: name
                    .map(|name| RestartPolicy { name: Some(name), maximum_retry_count: None }),
                ..ContainerUpdateBody::default()
            },
            on_unhealthy,
        };
        let on_unhealthy = || update(Some(RestartPolicyNameEnum::ON_FAILURE), true);
        let mut record = record(HostConfig::default());
        assert!(apply(&record, on_unhealthy()).is_err(), "it has no health check");
        let test = Some(vec!["CMD".to_owned(), "true".to_owned()]);
        record.config.healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
        assert!(apply(&record, on_unhealthy()).expect("good").restarts_unhealthy);
        record.restarts_unhealthy = true;
        assert!(apply(&record, update(None, false)).expect("good").restarts_unhealthy);
        let no = apply(&record, update(Some(RestartPolicyNameEnum::NO), false)).expect("good");
        assert!(!no.restarts_unhealthy);
    }
}
