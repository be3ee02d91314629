//! Limits: the request's numbers checked and put into the OCI form.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPidsBuilder, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::{devices, failed};
use crate::error::{Error, Result};
use crate::models::{HostConfig, ThrottleDevice};

/// The period that `--cpus` is converted with, in microseconds.
const PERIOD_US: i64 = 100_000;
/// The least memory a process can start with, as in Docker.
const MEMORY_BYTES_MIN: i64 = 6 << 20;

/// The limits of a request, without device rules.
pub(crate) fn resources(host: &HostConfig) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources.set_memory(memory(host)?);
    resources.set_cpu(cpu(host)?);
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        let limit = if limit < 0 { -1 } else { limit };
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build().map_err(failed)?));
    }
    resources.set_block_io(block_io(host)?);
    Ok(resources)
}

fn memory(host: &HostConfig) -> Result<Option<LinuxMemory>> {
    let limit = host.memory.unwrap_or(0);
    let swap = host.memory_swap.unwrap_or(0);
    let reservation = host.memory_reservation.unwrap_or(0);
    if limit != 0 && limit < MEMORY_BYTES_MIN {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if limit == 0 && swap > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if limit > 0 && swap > 0 && swap < limit {
        return Err(Error::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if limit > 0 && reservation > limit {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    let swappiness = match host.memory_swappiness {
        None | Some(-1) => None,
        Some(value @ 0..=100) => u64::try_from(value).ok(),
        Some(value) => {
            return Err(Error::invalid(format!(
                "Invalid value: {value}, valid memory swappiness range is 0-100"
            )));
        }
    };
    let mut memory = LinuxMemory::default();
    if limit > 0 {
        memory.set_limit(Some(limit));
        // Docker: twice the memory unless said otherwise.
        memory.set_swap(Some(if swap == 0 { limit.saturating_mul(2) } else { swap }));
    }
    memory.set_reservation(Some(reservation).filter(|bytes| *bytes > 0));
    memory.set_swappiness(swappiness);
    memory.set_disable_oom_killer(host.oom_kill_disable.filter(|disable| *disable));
    Ok(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
}

fn cpu(host: &HostConfig) -> Result<Option<LinuxCpu>> {
    let mut cpu = LinuxCpu::default();
    let positive = |what: &str, value: Option<i64>| match value.filter(|value| *value != 0) {
        None => Ok(None),
        Some(value) => u64::try_from(value)
            .map(Some)
            .map_err(|_| Error::invalid(format!("{what} cannot be negative: {value}"))),
    };
    cpu.set_shares(positive("CPU shares", host.cpu_shares)?);
    let nanos = host.nano_cpus.unwrap_or(0);
    if nanos < 0 {
        return Err(Error::invalid(
            "Range of CPUs is from 0.01: a negative number is not possible",
        ));
    }
    if nanos > 0 {
        if host.cpu_quota.is_some_and(|quota| quota != 0)
            || host.cpu_period.is_some_and(|period| period != 0)
        {
            return Err(Error::invalid(
                "Conflicting options: Nano CPUs and CPU Quota or Period cannot both be set",
            ));
        }
        let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = i64::try_from(online).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if !(10_000_000..=most).contains(&nanos) {
            return Err(Error::invalid(format!(
                "Range of CPUs is from 0.01 to {online}.00, as there are only {online} CPUs available"
            )));
        }
        let period = u64::try_from(PERIOD_US).unwrap_or(u64::MAX);
        cpu.set_period(Some(period));
        cpu.set_quota(Some(
            i64::try_from(i128::from(nanos) * i128::from(PERIOD_US) / 1_000_000_000)
                .unwrap_or(i64::MAX),
        ));
    } else {
        let period = positive("CPU period", host.cpu_period)?;
        if period.is_some_and(|period| !(1_000..=1_000_000).contains(&period)) {
            return Err(Error::invalid(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ));
        }
        cpu.set_period(period);
        let quota = host.cpu_quota.filter(|quota| *quota != 0);
        if quota.is_some_and(|quota| (1..1_000).contains(&quota)) {
            return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
        }
        cpu.set_quota(quota);
    }
    cpu.set_realtime_period(positive("CPU real-time period", host.cpu_realtime_period)?);
    cpu.set_realtime_runtime(host.cpu_realtime_runtime.filter(|runtime| *runtime != 0));
    cpu.set_cpus(cpu_list("cpuset-cpus", host.cpuset_cpus.as_deref())?);
    cpu.set_mems(cpu_list("cpuset-mems", host.cpuset_mems.as_deref())?);
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

/// `0-3,7`: the kernel checks the numbers, we check the alphabet.
fn cpu_list(what: &str, text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.len() <= 4096
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'-')
    {
        return Ok(Some(text.to_owned()));
    }
    Err(Error::invalid(format!("invalid value {text:?} for {what}: write a list such as 0-2,4")))
}

fn block_io(host: &HostConfig) -> Result<Option<LinuxBlockIo>> {
    let mut io = LinuxBlockIo::default();
    if let Some(weight) = host.blkio_weight.filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
        }
        io.set_weight(Some(weight));
    }
    let weights: Vec<LinuxWeightDevice> = host
        .blkio_weight_device
        .iter()
        .flatten()
        .map(|device| {
            let (major, minor) = block_device(device.path.as_deref())?;
            let weight = device.weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(0);
            LinuxWeightDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .weight(weight)
                .build()
                .map_err(failed)
        })
        .collect::<Result<_>>()?;
    io.set_weight_device(Some(weights).filter(|list| !list.is_empty()));
    io.set_throttle_read_bps_device(throttles(host.blkio_device_read_bps.as_deref())?);
    io.set_throttle_write_bps_device(throttles(host.blkio_device_write_bps.as_deref())?);
    io.set_throttle_read_iops_device(throttles(host.blkio_device_read_iops.as_deref())?);
    io.set_throttle_write_iops_device(throttles(host.blkio_device_write_iops.as_deref())?);
    Ok(Some(io).filter(|io| *io != LinuxBlockIo::default()))
}

fn throttles(list: Option<&[ThrottleDevice]>) -> Result<Option<Vec<LinuxThrottleDevice>>> {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
    let throttles = list.iter().map(|throttle| {
        let (major, minor) = block_device(throttle.path.as_deref())?;
        let rate = u64::try_from(throttle.rate.unwrap_or(0))
            .map_err(|_| Error::invalid("a rate cannot be negative"))?;
        LinuxThrottleDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .rate(rate)
            .build()
            .map_err(failed)
    });
    throttles.collect::<Result<_>>().map(Some)
}

fn block_device(path: Option<&str>) -> Result<(i64, i64)> {
    let path = path.unwrap_or_default();
    match devices::find(std::path::Path::new(path))? {
        Some(device) => Ok((device.major, device.minor)),
        None => Err(Error::invalid(format!("{path} is not a device"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_brings_its_swap_and_cpus_become_a_quota() {
        let host = HostConfig {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            ..HostConfig::default()
        };
        let resources = resources(&host).expect("good");
        let memory = resources.memory().expect("memory");
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let cpu = resources.cpu().clone().expect("cpu");
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert!(resources.pids().is_none() && resources.block_io().is_none());
    }

    #[test]
    fn impossible_limits_are_refused() {
        let rows: [HostConfig; 8] = [
            HostConfig { memory: Some(1 << 20), ..HostConfig::default() },
            HostConfig { memory_swap: Some(1 << 30), ..HostConfig::default() },
            HostConfig {
                memory: Some(1 << 30),
                memory_swap: Some(1 << 20),
                ..HostConfig::default()
            },
            HostConfig { memory_swappiness: Some(101), ..HostConfig::default() },
            HostConfig { nano_cpus: Some(1_000_000_000_000), ..HostConfig::default() },
            HostConfig {
                nano_cpus: Some(1_000_000_000),
                cpu_quota: Some(5_000),
                ..HostConfig::default()
            },
            HostConfig { cpuset_cpus: Some("0;1".into()), ..HostConfig::default() },
            HostConfig { blkio_weight: Some(5), ..HostConfig::default() },
        ];
        for host in rows {
            assert!(resources(&host).is_err(), "{host:?}");
        }
    }

    #[test]
    fn minus_one_is_unlimited() {
        let host = HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            pids_limit: Some(-1),
            ..HostConfig::default()
        };
        let resources = resources(&host).expect("good");
        assert_eq!(resources.memory().expect("memory").swap(), Some(-1));
        assert_eq!(resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit), Some(-1));
    }
}
