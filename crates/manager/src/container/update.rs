//! Changing a container's limits and restart policy.

use super::restart::Policy;
use super::spec;
use crate::error::{Error, Result};
use crate::models::{ContainerUpdateBody, HostConfig};

/// The host configuration with the changes of `update`, checked as a whole. Zero and absent mean "leave it".
pub(crate) fn apply(host: &HostConfig, update: ContainerUpdateBody) -> Result<HostConfig> {
    refuse(&update)?;
    let mut changed = host.clone();
    if update.restart_policy.as_ref().is_some_and(|policy| policy.name.is_some()) {
        Policy::parse(update.restart_policy.as_ref())?;
        if host.auto_remove == Some(true)
            && Policy::parse(update.restart_policy.as_ref())? != Policy::No
        {
            return Err(Error::conflict(
                "restart policy cannot be updated because AutoRemove is enabled",
            ));
        }
        changed.restart_policy = update.restart_policy;
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
    Ok(changed)
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

    #[test]
    fn what_is_absent_or_zero_stays() {
        let host =
            HostConfig { memory: Some(64 << 20), cpu_shares: Some(512), ..HostConfig::default() };
        let update = ContainerUpdateBody {
            cpu_shares: Some(0),
            pids_limit: Some(9),
            ..ContainerUpdateBody::default()
        };
        let changed = apply(&host, update).expect("good");
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
        assert!(apply(&host, update).is_err());
    }
}
