//! The cpu and cpuset controllers.

use oci_spec::runtime::LinuxCpu;

use super::directory::Directory;
use super::failure::{self, Result, errno};
use super::{Cgroup, Located};

const FIELD: &str = "linux.resources.cpu";

/// Sets CPU bandwidth, shares and placement.
pub(super) fn set(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    set_cpuset(cgroup, cpu)?;
    if sets_bandwidth(cpu) {
        match cgroup.require(FIELD, "cpu", "cpu")? {
            Located::V1(directory) => set_v1(directory, cpu)?,
            Located::V2(directory) => set_v2(directory, cpu)?,
        }
    }
    Ok(())
}

/// Gives a new v1 cpuset the CPUs and memory nodes of its parent: it starts empty, and an empty one takes no process.
pub(super) fn inherit_cpuset(parent: &Directory, child: &Directory) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

fn sets_bandwidth(cpu: &LinuxCpu) -> bool {
    let some = |value: Option<u64>| value.is_some_and(|value| value != 0);
    some(cpu.shares())
        || cpu.quota().is_some_and(|quota| quota != 0)
        || some(cpu.period())
        || cpu.burst().is_some()
        || cpu.idle().is_some()
        || some(cpu.realtime_period())
        || cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
}

fn set_cpuset(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    let lists = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    for (file, list) in lists {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
        let (Located::V1(directory) | Located::V2(directory)) =
            cgroup.require(FIELD, "cpuset", "cpuset")?;
        directory.write(file, list)?;
    }
    Ok(())
}

fn set_v1(directory: &Directory, cpu: &LinuxCpu) -> Result<()> {
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        set_realtime(directory, cpu.realtime_period(), runtime)?;
    } else if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        directory.write("cpu.rt_period_us", &period.to_string())?;
    }
    with_idle(directory, cpu, || match cpu.shares().filter(|shares| *shares != 0) {
        Some(shares) => directory.write("cpu.shares", &shares.to_string()),
        None => Ok(()),
    })?;
    with_burst(directory, "cpu.cfs_burst_us", cpu.burst(), || {
        let period = cpu.period().filter(|period| *period != 0);
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let set_quota = || match quota {
            Some(quota) => directory.write("cpu.cfs_quota_us", &quota.to_string()),
            None => Ok(()),
        };
        let Some(period) = period.map(|period| period.to_string()) else { return set_quota() };
        // Both bound each other through the parent's share: whichever order is refused, the other may work.
        match directory.write("cpu.cfs_period_us", &period) {
            Ok(()) => set_quota(),
            Err(error) if errno(&error) == Some(libc::EINVAL) && quota.is_some() => {
                set_quota()?;
                directory.write("cpu.cfs_period_us", &period)
            }
            Err(error) => Err(error),
        }
    })
}

/// The runtime must fit the period at every step.
fn set_realtime(directory: &Directory, period: Option<u64>, runtime: i64) -> Result<()> {
    let runtime = runtime.to_string();
    let Some(period) = period.filter(|period| *period != 0) else {
        return directory.write("cpu.rt_runtime_us", &runtime);
    };
    match directory.write("cpu.rt_period_us", &period.to_string()) {
        Ok(()) => directory.write("cpu.rt_runtime_us", &runtime),
        Err(error) if errno(&error) == Some(libc::EINVAL) => {
            directory.write("cpu.rt_runtime_us", &runtime)?;
            directory.write("cpu.rt_period_us", &period.to_string())
        }
        Err(error) => Err(error),
    }
}

fn set_v2(directory: &Directory, cpu: &LinuxCpu) -> Result<()> {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period().is_some_and(|period| period != 0)
    {
        let why = "cgroup v2 does not divide realtime CPU time; drop realtimeRuntime and -Period";
        return Err(failure::unsupported(format!("{FIELD}.realtimeRuntime"), why));
    }
    with_idle(directory, cpu, || match cpu.shares().filter(|shares| *shares != 0) {
        Some(shares) => directory.write("cpu.weight", &weight_from_shares(shares).to_string()),
        None => Ok(()),
    })?;
    with_burst(directory, "cpu.max.burst", cpu.burst(), || {
        let period = cpu.period().filter(|period| *period != 0);
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let quota = match (quota, period) {
            (None, None) => return Ok(()),
            (Some(quota), _) if quota > 0 => quota.to_string(),
            (Some(_), _) => "max".to_owned(),
            // The file takes the quota first: keep the one that is set.
            (None, Some(_)) => {
                let current = directory.read("cpu.max")?;
                current.split_whitespace().next().unwrap_or("max").to_owned()
            }
        };
        let value = match period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        directory.write("cpu.max", &value)
    })
}

/// Sets shares around `cpu.idle`: an idle group takes no weight, so it stops being idle first and becomes idle last.
fn with_idle(
    directory: &Directory,
    cpu: &LinuxCpu,
    set_weight: impl FnOnce() -> Result<()>,
) -> Result<()> {
    match cpu.idle() {
        Some(0) => {
            directory.write("cpu.idle", "0")?;
            set_weight()
        }
        Some(idle) => {
            set_weight()?;
            directory.write("cpu.idle", &idle.to_string())
        }
        None => set_weight(),
    }
}

/// Sets the quota around the burst, which must never exceed it: before when that is accepted, else after.
fn with_burst(
    directory: &Directory,
    file: &str,
    burst: Option<u64>,
    set_quota: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(burst) = burst.map(|burst| burst.to_string()) else { return set_quota() };
    let early = match directory.write(file, &burst) {
        Ok(()) => true,
        Err(error) if errno(&error) == Some(libc::EINVAL) => false,
        Err(error) => return Err(error),
    };
    set_quota()?;
    if early { Ok(()) } else { directory.write(file, &burst) }
}

/// v1 shares (2..=262144, default 1024) as a v2 weight (1..=10000, default 100).
///
/// The curve is the one runc and crun have used since 2025, a quadratic in log2 that maps minimum, default and maximum
/// onto each other; the straight line used before gave the default shares a weight of 39.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the value is between 1 and 10000"
)]
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // A hair below, so that rounding noise on exact powers does not add one.
            (10_f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}
