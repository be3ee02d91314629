//! Statistics of a container, in one shape for both cgroup versions.

mod cpuset;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::directory::{Directory, keyed_number, parse_number};
use super::failure::{self, Result};
use super::{Cgroup, Located};

pub use self::cpuset::CpusetStats;

/// v1 says "no limit" with the largest page-aligned signed number; anything near it is no limit.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
/// `USER_HZ`, the unit of `cpuacct.stat`: 100 on every architecture that runs containers.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// What the kernel counts for a container. Parts whose controller the host lacks are `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// Which processors and memory nodes it may use; only v1 has the switches.
    pub cpuset: Option<CpusetStats>,
    /// Memory and swap.
    pub memory: Option<MemoryStats>,
    /// Number of tasks.
    pub pids: Option<PidsStats>,
    /// Block I/O by device.
    pub io: Vec<IoDevice>,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Pressure stall information on CPU (kernel 5.2 with PSI on, cgroup2 only).
    pub cpu_pressure: Option<Pressure>,
    /// Pressure on memory.
    pub memory_pressure: Option<Pressure>,
    /// Pressure on I/O.
    pub io_pressure: Option<Pressure>,
}

/// CPU time used and denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// Time used by all tasks.
    pub usage_nanoseconds: u64,
    /// Part of it in user mode.
    pub user_nanoseconds: u64,
    /// Part of it in the kernel.
    pub system_nanoseconds: u64,
    /// Time used by CPU; only v1 counts it.
    pub per_cpu_nanoseconds: Vec<u64>,
    /// Part of it in user mode (v1, kernel 4.11).
    pub per_cpu_user_nanoseconds: Vec<u64>,
    /// Part of it in the kernel.
    pub per_cpu_system_nanoseconds: Vec<u64>,
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time that tasks had to wait for a new quota.
    pub throttled_nanoseconds: u64,
    /// Periods in which saved-up quota was used (kernel 5.15).
    pub bursts: u64,
    /// Time used beyond the quota in these.
    pub burst_nanoseconds: u64,
}

/// Memory use. Limits that are not set are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Bytes in use, page cache included.
    pub usage_bytes: u64,
    /// The limit.
    pub limit_bytes: Option<u64>,
    /// The most that was ever in use (v2: `memory.peak`, kernel 5.19).
    pub max_usage_bytes: Option<u64>,
    /// How often the limit was hit.
    pub fail_count: u64,
    /// Swap in use. v1 counts memory and swap together; this is swap alone for both.
    pub swap_usage_bytes: Option<u64>,
    /// The limit of swap alone.
    pub swap_limit_bytes: Option<u64>,
    /// Kernel memory in use.
    pub kernel_usage_bytes: Option<u64>,
    /// The most kernel memory that was in use; only v1 keeps it.
    pub kernel_max_usage_bytes: Option<u64>,
    /// The most memory and swap together that was in use; only v1 keeps it.
    pub swap_max_usage_bytes: Option<u64>,
    /// How often the limit of memory and swap together was hit (v1).
    pub swap_fail_count: u64,
    /// Times the group ran out of memory (v2), or is out of it now (v1).
    pub oom_events: u64,
    /// Processes the OOM killer has killed here.
    pub oom_kills: u64,
    /// `memory.stat`, by the kernel's own keys, which differ between the versions.
    pub stat: BTreeMap<String, u64>,
}

/// Tasks in the cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Tasks now, threads included.
    pub current: u64,
    /// The limit.
    pub limit: Option<u64>,
}

/// What went to and from one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IoDevice {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Reads done.
    pub read_operations: u64,
    /// Writes done.
    pub write_operations: u64,
    /// Discards done.
    pub discard_operations: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HugetlbStats {
    /// Bytes in use.
    pub usage_bytes: u64,
    /// The most that was in use; only v1 keeps it.
    pub max_usage_bytes: Option<u64>,
    /// How often the limit was hit.
    pub fail_count: u64,
}

/// Pressure stall information of one resource (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some task waited.
    pub some: PressureAverages,
    /// All tasks waited at once.
    pub full: PressureAverages,
}

/// Share of time lost, in percent, over three windows, and in total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureAverages {
    /// Over the last 10 seconds.
    pub avg10_percent: f64,
    /// Over the last minute.
    pub avg60_percent: f64,
    /// Over the last five minutes.
    pub avg300_percent: f64,
    /// All time lost.
    pub total_microseconds: u64,
}

/// Memory alone; `None` without its controller.
pub(super) fn read_memory(cgroup: &Cgroup) -> Result<Option<MemoryStats>> {
    match cgroup.controller("memory", "memory") {
        Some(Located::V1(directory)) => memory_v1(directory),
        Some(Located::V2(directory)) => memory_v2(directory),
        None => Ok(None),
    }
}

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats> {
    let memory = read_memory(cgroup)?;
    let pids = match cgroup.controller("pids", "pids") {
        Some(Located::V1(directory) | Located::V2(directory)) => {
            let limit = limit(directory.read_number("pids.max")?);
            directory.read_number("pids.current")?.map(|current| PidsStats { current, limit })
        }
        None => None,
    };
    let io = match cgroup.controller("blkio", "io") {
        Some(Located::V1(directory)) => io_v1(directory)?,
        Some(Located::V2(directory)) => {
            io_v2(&directory.read_optional("io.stat")?.unwrap_or_default())
        }
        None => Vec::new(),
    };
    let pressure = |file: &str| -> Result<Option<Pressure>> {
        let Some(unified) = &cgroup.unified else { return Ok(None) };
        let text = unified.directory.read_optional(file)?;
        Ok(text.as_deref().and_then(parse_pressure))
    };
    Ok(Stats {
        cpu: cpu(cgroup)?,
        cpuset: cgroup.legacy_controller("cpuset").map(cpuset::read).transpose()?,
        memory,
        pids,
        io,
        hugetlb: hugetlb(cgroup)?,
        cpu_pressure: pressure("cpu.pressure")?,
        memory_pressure: pressure("memory.pressure")?,
        io_pressure: pressure("io.pressure")?,
    })
}

fn cpu(cgroup: &Cgroup) -> Result<Option<CpuStats>> {
    if let Some(directory) = cgroup.legacy_controller("cpuacct") {
        let throttling = match cgroup.legacy_controller("cpu") {
            Some(cpu) => cpu.read_optional("cpu.stat")?.unwrap_or_default(),
            None => String::new(),
        };
        return cpu_v1(directory, &throttling).map(Some);
    }
    // cpu.stat has usage on every cgroup2, with or without the cpu controller.
    let Some(unified) = &cgroup.unified else { return Ok(None) };
    let Some(text) = unified.directory.read_optional("cpu.stat")? else { return Ok(None) };
    let value = |key| keyed_number(&text, key).unwrap_or(0);
    let nanoseconds = |key| value(key).saturating_mul(1000);
    Ok(Some(CpuStats {
        usage_nanoseconds: nanoseconds("usage_usec"),
        user_nanoseconds: nanoseconds("user_usec"),
        system_nanoseconds: nanoseconds("system_usec"),
        per_cpu_nanoseconds: Vec::new(),
        per_cpu_user_nanoseconds: Vec::new(),
        per_cpu_system_nanoseconds: Vec::new(),
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_nanoseconds: nanoseconds("throttled_usec"),
        bursts: value("nr_bursts"),
        burst_nanoseconds: nanoseconds("burst_usec"),
    }))
}

fn cpu_v1(directory: &Directory, throttling: &str) -> Result<CpuStats> {
    let ticks = directory.read("cpuacct.stat")?;
    let tick = |key| keyed_number(&ticks, key).unwrap_or(0).saturating_mul(NANOSECONDS_PER_TICK);
    // Exact where the kernel has the files (4.11), in clock ticks otherwise.
    let user = directory.read_number("cpuacct.usage_user")?;
    let system = directory.read_number("cpuacct.usage_sys")?;
    let per_cpu = directory.read("cpuacct.usage_percpu")?;
    let all = directory.read_optional("cpuacct.usage_all")?.unwrap_or_default();
    let column = |index: usize| {
        let cells = all.lines().skip(1).filter_map(|line| line.split_whitespace().nth(index));
        cells.filter_map(|cell| cell.parse().ok()).collect()
    };
    let value = |key| keyed_number(throttling, key).unwrap_or(0);
    Ok(CpuStats {
        per_cpu_user_nanoseconds: column(1),
        per_cpu_system_nanoseconds: column(2),
        usage_nanoseconds: required(directory, "cpuacct.usage")?,
        user_nanoseconds: user.unwrap_or_else(|| tick("user")),
        system_nanoseconds: system.unwrap_or_else(|| tick("system")),
        per_cpu_nanoseconds: per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_nanoseconds: value("throttled_time"),
        bursts: value("nr_bursts"),
        burst_nanoseconds: value("burst_time"),
    })
}

fn memory_v1(directory: &Directory) -> Result<Option<MemoryStats>> {
    let Some(usage) = directory.read_number("memory.usage_in_bytes")? else { return Ok(None) };
    let memory_limit = limit(directory.read_number("memory.limit_in_bytes")?);
    let swap_usage = directory.read_number("memory.memsw.usage_in_bytes")?;
    let swap_limit = limit(directory.read_number("memory.memsw.limit_in_bytes")?);
    let oom = directory.read_optional("memory.oom_control")?.unwrap_or_default();
    Ok(Some(MemoryStats {
        usage_bytes: usage,
        limit_bytes: memory_limit,
        max_usage_bytes: directory.read_number("memory.max_usage_in_bytes")?,
        fail_count: directory.read_number("memory.failcnt")?.unwrap_or(0),
        swap_usage_bytes: swap_usage.map(|total| total.saturating_sub(usage)),
        swap_limit_bytes: swap_limit
            .map(|total| total.saturating_sub(memory_limit.unwrap_or(total))),
        kernel_usage_bytes: directory.read_number("memory.kmem.usage_in_bytes")?,
        kernel_max_usage_bytes: directory.read_number("memory.kmem.max_usage_in_bytes")?,
        swap_max_usage_bytes: directory.read_number("memory.memsw.max_usage_in_bytes")?,
        swap_fail_count: directory.read_number("memory.memsw.failcnt")?.unwrap_or(0),
        oom_events: keyed_number(&oom, "under_oom").unwrap_or(0),
        oom_kills: keyed_number(&oom, "oom_kill").unwrap_or(0),
        stat: keyed_numbers(&directory.read("memory.stat")?),
    }))
}

fn memory_v2(directory: &Directory) -> Result<Option<MemoryStats>> {
    let Some(usage) = directory.read_number("memory.current")? else { return Ok(None) };
    let events = directory.read_optional("memory.events")?.unwrap_or_default();
    let stat = keyed_numbers(&directory.read("memory.stat")?);
    Ok(Some(MemoryStats {
        usage_bytes: usage,
        limit_bytes: limit(directory.read_number("memory.max")?),
        max_usage_bytes: directory.read_number("memory.peak")?,
        fail_count: keyed_number(&events, "max").unwrap_or(0),
        swap_usage_bytes: directory.read_number("memory.swap.current")?,
        swap_limit_bytes: limit(directory.read_number("memory.swap.max")?),
        kernel_usage_bytes: stat.get("kernel").copied(),
        kernel_max_usage_bytes: None,
        swap_max_usage_bytes: None,
        swap_fail_count: 0,
        oom_events: keyed_number(&events, "oom").unwrap_or(0),
        oom_kills: keyed_number(&events, "oom_kill").unwrap_or(0),
        stat,
    }))
}

/// Bytes and operations by device. BFQ counts what the throttling layer does not see, so the larger table is used.
fn io_v1(directory: &Directory) -> Result<Vec<IoDevice>> {
    let table = |kind: &str| -> Result<BTreeMap<(u64, u64), IoDevice>> {
        let bytes = read_first(directory, kind, "io_service_bytes")?;
        let operations = read_first(directory, kind, "io_serviced")?;
        Ok(parse_io_v1(&bytes, &operations))
    };
    let throttle = table("throttle")?;
    let found = if throttle.is_empty() { table("bfq")? } else { throttle };
    Ok(found.into_values().collect())
}

fn read_first(directory: &Directory, kind: &str, what: &str) -> Result<String> {
    for suffix in ["_recursive", ""] {
        if let Some(text) = directory.read_optional(&format!("blkio.{kind}.{what}{suffix}"))? {
            return Ok(text);
        }
    }
    Ok(String::new())
}

fn parse_io_v1(bytes: &str, operations: &str) -> BTreeMap<(u64, u64), IoDevice> {
    let mut devices: BTreeMap<(u64, u64), IoDevice> = BTreeMap::new();
    for (text, counts_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let (Some(number), Some(operation), Some(value)) =
                (fields.next().and_then(device_number), fields.next(), fields.next())
            else {
                continue;
            };
            let device = devices.entry(number).or_insert_with(|| IoDevice {
                major: number.0,
                minor: number.1,
                ..IoDevice::default()
            });
            let counter = match (operation, counts_bytes) {
                ("Read", true) => &mut device.read_bytes,
                ("Write", true) => &mut device.write_bytes,
                ("Discard", true) => &mut device.discard_bytes,
                ("Read", false) => &mut device.read_operations,
                ("Write", false) => &mut device.write_operations,
                ("Discard", false) => &mut device.discard_operations,
                _ => continue,
            };
            *counter = value.parse().unwrap_or(0);
        }
    }
    devices
}

fn io_v2(text: &str) -> Vec<IoDevice> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(device_number) else { continue };
        let mut device = IoDevice { major, minor, ..IoDevice::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let counter = match key {
                "rbytes" => &mut device.read_bytes,
                "wbytes" => &mut device.write_bytes,
                "dbytes" => &mut device.discard_bytes,
                "rios" => &mut device.read_operations,
                "wios" => &mut device.write_operations,
                "dios" => &mut device.discard_operations,
                _ => continue,
            };
            *counter = value.parse().unwrap_or(0);
        }
        devices.push(device);
    }
    devices
}

fn device_number(field: &str) -> Option<(u64, u64)> {
    let (major, minor) = field.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn hugetlb(cgroup: &Cgroup) -> Result<BTreeMap<String, HugetlbStats>> {
    let mut found = BTreeMap::new();
    let Some(located) = cgroup.controller("hugetlb", "hugetlb") else { return Ok(found) };
    for size in page_sizes() {
        let stats = match located {
            Located::V1(directory) => {
                let number = |file| directory.read_number(&format!("hugetlb.{size}.{file}"));
                let Some(usage) = number("usage_in_bytes")? else { continue };
                let fail_count = number("failcnt")?.unwrap_or(0);
                let max_usage_bytes = number("max_usage_in_bytes")?;
                HugetlbStats { usage_bytes: usage, max_usage_bytes, fail_count }
            }
            Located::V2(directory) => {
                let number = |file| directory.read_number(&format!("hugetlb.{size}.{file}"));
                let Some(usage) = number("current")? else { continue };
                let events = directory.read_optional(&format!("hugetlb.{size}.events"))?;
                let fail_count = events.and_then(|text| keyed_number(&text, "max")).unwrap_or(0);
                HugetlbStats { usage_bytes: usage, max_usage_bytes: None, fail_count }
            }
        };
        found.insert(size, stats);
    }
    Ok(found)
}

/// The huge page sizes of the machine, as the hugetlb controller spells them in file names.
fn page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(Path::new("/sys/kernel/mm/hugepages")) else {
        return Vec::new();
    };
    let mut sizes: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| page_size_name(&name))
        .collect();
    sizes.sort();
    sizes
}

/// `hugepages-2048kB` as `2MB`.
fn page_size_name(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    })
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let averages = |kind: &str| -> Option<PressureAverages> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |key: &str| {
            line.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        };
        Some(PressureAverages {
            avg10_percent: value("avg10")?.parse().ok()?,
            avg60_percent: value("avg60")?.parse().ok()?,
            avg300_percent: value("avg300")?.parse().ok()?,
            total_microseconds: value("total")?.parse().ok()?,
        })
    };
    // Kernels before 5.13 have no `full` line for CPU.
    Some(Pressure { some: averages("some ")?, full: averages("full ").unwrap_or_default() })
}

fn keyed_numbers(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), parse_number(value.trim())?)))
        .collect()
}

fn required(directory: &Directory, file: &str) -> Result<u64> {
    directory.read(file)?.trim().parse().map_err(|_| {
        let unreadable = rustix::io::Errno::BADMSG;
        failure::file("read a number from", &directory.path().join(file), unreadable)
    })
}

fn limit(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value < V1_UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_io_lines_become_devices() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \n";
        let expected = IoDevice {
            major: 8,
            minor: 0,
            read_bytes: 1,
            write_bytes: 2,
            read_operations: 3,
            write_operations: 4,
            discard_bytes: 5,
            discard_operations: 6,
        };
        let empty = IoDevice { major: 7, minor: 1, ..IoDevice::default() };
        assert_eq!(io_v2(text), [expected, empty]);
    }

    #[test]
    fn v1_io_tables_are_joined_by_device() {
        let bytes = "254:0 Read 4096\n254:0 Write 0\n254:0 Total 4096\nTotal 4096\n";
        let devices = parse_io_v1(bytes, "254:0 Read 1\n254:0 Write 0\nTotal 1\n");
        let device = &devices[&(254, 0)];
        assert_eq!((device.read_bytes, device.read_operations), (4096, 1));
        assert_eq!(devices.len(), 1);
    }

    #[test]
    fn pressure_lines_are_read_with_and_without_full() {
        let some = "some avg10=0.12 avg60=1.00 avg300=2.50 total=42\n";
        let pressure = parse_pressure(some).unwrap();
        assert_eq!(pressure.some.total_microseconds, 42);
        assert_eq!(pressure.full, PressureAverages::default());
        let both = format!("{some}full avg10=0.01 avg60=0.00 avg300=0.00 total=7\n");
        assert_eq!(parse_pressure(&both).unwrap().full.total_microseconds, 7);
        assert!(parse_pressure("").is_none());
    }

    #[test]
    fn page_sizes_are_spelled_as_in_file_names() {
        for (directory, name) in [
            ("hugepages-64kB", "64KB"),
            ("hugepages-2048kB", "2MB"),
            ("hugepages-1048576kB", "1GB"),
        ] {
            assert_eq!(page_size_name(directory).as_deref(), Some(name));
        }
    }
}
