//! The block I/O controller: `blkio` on v1, `io` on v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::directory::Directory;
use super::failure::{self, Result};
use super::{Cgroup, Located};

const FIELD: &str = "linux.resources.blockIO";

/// Sets weights and throttles.
pub(super) fn set(cgroup: &Cgroup, block_io: &LinuxBlockIo) -> Result<()> {
    if *block_io == LinuxBlockIo::default() {
        return Ok(());
    }
    let weights = weight_values(block_io)?;
    let throttles = throttles(block_io)?;
    if weights.is_empty() && throttles.is_empty() {
        return Ok(());
    }
    match cgroup.require(FIELD, "blkio", "io")? {
        Located::V1(directory) => {
            weights.iter().try_for_each(|weight| weight.set_v1(directory))?;
            throttles.iter().try_for_each(|throttle| {
                let value = format!("{} {}", throttle.device, throttle.rate);
                directory.write(throttle.kind.v1_file, &value)
            })
        }
        Located::V2(directory) => {
            weights.iter().try_for_each(|weight| weight.set_v2(directory))?;
            throttles.iter().try_for_each(|throttle| {
                // v1 writes 0 to lift a limit; v2 says max.
                let rate = match throttle.rate {
                    0 => "max".to_owned(),
                    rate => rate.to_string(),
                };
                directory.write(
                    "io.max",
                    &format!("{} {}={rate}", throttle.device, throttle.kind.v2_key),
                )
            })
        }
    }
}

/// v1 weight (10..=1000) as a v2 weight (1..=10000), for `io.weight`; BFQ's own file keeps v1's range.
pub(super) fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight).saturating_sub(10)) * 9999 / 990
}

/// A weight for all devices or for one.
struct Weight {
    device: Option<String>,
    leaf: bool,
    weight: u16,
}

impl Weight {
    fn set_v1(&self, directory: &Directory) -> Result<()> {
        let files: &[&str] = match (&self.device, self.leaf) {
            (None, false) => &["blkio.bfq.weight", "blkio.weight"],
            (None, true) => &["blkio.leaf_weight"],
            (Some(_), false) => &["blkio.bfq.weight_device", "blkio.weight_device"],
            (Some(_), true) => &["blkio.leaf_weight_device"],
        };
        for file in files {
            if directory.write_if_present(file, &self.line(u32::from(self.weight)))? {
                return Ok(());
            }
        }
        Err(Self::no_scheduler(self.leaf))
    }

    fn set_v2(&self, directory: &Directory) -> Result<()> {
        if self.leaf {
            let why = "cgroup v2 has no leaf weights";
            return Err(failure::unsupported(format!("{FIELD}.leafWeight"), why));
        }
        if directory.write_if_present("io.bfq.weight", &self.line(u32::from(self.weight)))?
            || directory.write_if_present("io.weight", &self.line(io_weight(self.weight)))?
        {
            return Ok(());
        }
        Err(Self::no_scheduler(false))
    }

    fn line(&self, weight: u32) -> String {
        match &self.device {
            Some(device) => format!("{device} {weight}"),
            None => weight.to_string(),
        }
    }

    fn no_scheduler(leaf: bool) -> crate::error::Error {
        let field = format!("{FIELD}.{}", if leaf { "leafWeight" } else { "weight" });
        failure::unsupported(field, "this kernel has no I/O scheduler with weights (BFQ)")
    }
}

fn weight_values(block_io: &LinuxBlockIo) -> Result<Vec<Weight>> {
    let mut found = Vec::new();
    let mut push = |device: Option<&LinuxWeightDevice>, leaf, weight: Option<u16>| {
        let Some(weight) = weight.filter(|weight| *weight != 0) else { return Ok(()) };
        if !(10..=1000).contains(&weight) {
            let field = format!("{FIELD}.{}", if leaf { "leafWeight" } else { "weight" });
            return Err(failure::invalid(field, weight, "not between 10 and 1000"));
        }
        let device = device.map(|device| number(device.major(), device.minor())).transpose()?;
        found.push(Weight { device, leaf, weight });
        Ok(())
    };
    push(None, false, block_io.weight())?;
    push(None, true, block_io.leaf_weight())?;
    for device in block_io.weight_device().iter().flatten() {
        push(Some(device), false, device.weight())?;
        push(Some(device), true, device.leaf_weight())?;
    }
    Ok(found)
}

/// The same limit in both versions.
struct ThrottleKind {
    v1_file: &'static str,
    v2_key: &'static str,
}

struct Throttle {
    kind: ThrottleKind,
    device: String,
    rate: u64,
}

fn throttles(block_io: &LinuxBlockIo) -> Result<Vec<Throttle>> {
    let lists: [(_, _, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("blkio.throttle.read_bps_device", "rbps", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", block_io.throttle_write_iops_device()),
    ];
    let mut found = Vec::new();
    for (v1_file, v2_key, devices) in lists {
        for device in devices.iter().flatten() {
            found.push(Throttle {
                kind: ThrottleKind { v1_file, v2_key },
                device: number(device.major(), device.minor())?,
                rate: device.rate(),
            });
        }
    }
    Ok(found)
}

fn number(major: i64, minor: i64) -> Result<String> {
    if major < 0 || minor < 0 {
        let value = format!("{major}:{minor}");
        return Err(failure::invalid(format!("{FIELD} device"), value, "not a device number"));
    }
    Ok(format!("{major}:{minor}"))
}
