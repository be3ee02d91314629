//! Statistics in the JSON that runc prints, whose names programs that read `events` know.

use brig_runtime::cgroup::{
    CpuStats, CpusetStats, HugetlbStats, IoDevice, MemoryStats, Pressure, PressureAverages, Stats,
};
use serde_json::{Map, Value, json};

/// The `data` of an event. Numbers that are zero are left out where runc leaves them out.
pub(super) fn data(stats: &Stats) -> Value {
    let mut pids = Map::new();
    if let Some(counted) = &stats.pids {
        put(&mut pids, "current", counted.current);
        put(&mut pids, "limit", counted.limit.unwrap_or(0));
    }
    let hugetlb: Map<String, Value> =
        stats.hugetlb.iter().map(|(size, counted)| (size.clone(), huge_pages(counted))).collect();
    json!({
        "cpu": cpu(&stats.cpu.clone().unwrap_or_default(), stats.cpu_pressure),
        "cpuset": cpuset(&stats.cpuset.clone().unwrap_or_default()),
        "memory": memory(&stats.memory.clone().unwrap_or_default(), stats.memory_pressure),
        "pids": pids,
        "blkio": block_io(&stats.io, stats.io_pressure),
        "hugetlb": hugetlb,
        "intel_rdt": {},
        // A runtime that takes its network from the caller has no interfaces of its own to count.
        "network_interfaces": null,
    })
}

fn put(map: &mut Map<String, Value>, key: &str, number: u64) {
    if number != 0 {
        map.insert(key.to_owned(), number.into());
    }
}

fn put_list(map: &mut Map<String, Value>, key: &str, numbers: &[u64]) {
    if !numbers.is_empty() {
        map.insert(key.to_owned(), numbers.into());
    }
}

fn put_pressure(map: &mut Map<String, Value>, pressure: Option<Pressure>) {
    let averages = |averages: PressureAverages| {
        json!({
            "avg10": averages.avg10_percent,
            "avg60": averages.avg60_percent,
            "avg300": averages.avg300_percent,
            "total": averages.total_microseconds,
        })
    };
    if let Some(pressure) = pressure {
        let value = json!({"some": averages(pressure.some), "full": averages(pressure.full)});
        map.insert("psi".to_owned(), value);
    }
}

fn cpu(stats: &CpuStats, pressure: Option<Pressure>) -> Value {
    let mut usage = Map::new();
    put(&mut usage, "total", stats.usage_nanoseconds);
    put_list(&mut usage, "percpu", &stats.per_cpu_nanoseconds);
    put_list(&mut usage, "percpu_kernel", &stats.per_cpu_system_nanoseconds);
    put_list(&mut usage, "percpu_user", &stats.per_cpu_user_nanoseconds);
    usage.insert("kernel".to_owned(), stats.system_nanoseconds.into());
    usage.insert("user".to_owned(), stats.user_nanoseconds.into());
    let mut throttling = Map::new();
    put(&mut throttling, "periods", stats.periods);
    put(&mut throttling, "throttledPeriods", stats.throttled_periods);
    put(&mut throttling, "throttledTime", stats.throttled_nanoseconds);
    let mut cpu = Map::new();
    cpu.insert("usage".to_owned(), usage.into());
    cpu.insert("throttling".to_owned(), throttling.into());
    put_pressure(&mut cpu, pressure);
    cpu.into()
}

fn cpuset(stats: &CpusetStats) -> Value {
    let mut value = json!({
        "cpu_exclusive": stats.cpu_exclusive,
        "mem_hardwall": stats.mem_hardwall,
        "mem_exclusive": stats.mem_exclusive,
        "memory_migrate": stats.memory_migrate,
        "memory_spread_page": stats.memory_spread_page,
        "memory_spread_slab": stats.memory_spread_slab,
        "memory_pressure": stats.memory_pressure,
        "sched_load_balance": stats.sched_load_balance,
        "sched_relax_domain_level": stats.sched_relax_domain_level,
    });
    for (key, numbers) in [("cpus", &stats.cpus), ("mems", &stats.mems)] {
        if !numbers.is_empty() {
            value[key] = json!(numbers);
        }
    }
    value
}

/// One kind of memory; no limit is the largest number.
fn entry(usage: Option<u64>, limit: Option<u64>, most: Option<u64>, fail_count: u64) -> Value {
    let mut map = Map::new();
    map.insert("limit".to_owned(), limit.unwrap_or(u64::MAX).into());
    put(&mut map, "usage", usage.unwrap_or(0));
    put(&mut map, "max", most.unwrap_or(0));
    map.insert("failcnt".to_owned(), fail_count.into());
    map.into()
}

fn memory(stats: &MemoryStats, pressure: Option<Pressure>) -> Value {
    let raw = |key: &str| stats.stat.get(key).copied();
    // Memory and swap together, as v1 counts them.
    let swap_usage = stats.swap_usage_bytes.map(|swap| swap.saturating_add(stats.usage_bytes));
    let swap_limit = stats.swap_limit_bytes.zip(stats.limit_bytes);
    let swap_limit = swap_limit.map(|(swap, memory)| swap.saturating_add(memory));
    let mut memory = Map::new();
    put(&mut memory, "cache", raw("cache").or_else(|| raw("file")).unwrap_or(0));
    let (usage, most) = (Some(stats.usage_bytes), stats.max_usage_bytes);
    memory.insert("usage".to_owned(), entry(usage, stats.limit_bytes, most, stats.fail_count));
    let most = stats.swap_max_usage_bytes;
    memory.insert("swap".to_owned(), entry(swap_usage, swap_limit, most, stats.swap_fail_count));
    let most = stats.kernel_max_usage_bytes;
    memory.insert("kernel".to_owned(), entry(stats.kernel_usage_bytes, None, most, 0));
    memory.insert("kernelTCP".to_owned(), entry(raw("sock"), None, None, 0));
    if !stats.stat.is_empty() {
        memory.insert("raw".to_owned(), json!(stats.stat));
    }
    put_pressure(&mut memory, pressure);
    memory.into()
}

fn huge_pages(stats: &HugetlbStats) -> Value {
    let mut map = Map::new();
    put(&mut map, "usage", stats.usage_bytes);
    put(&mut map, "max", stats.max_usage_bytes.unwrap_or(0));
    map.insert("failcnt".to_owned(), stats.fail_count.into());
    map.into()
}

fn block_io(devices: &[IoDevice], pressure: Option<Pressure>) -> Value {
    let entries = |values: fn(&IoDevice) -> [(&'static str, u64); 3]| -> Vec<Value> {
        let lines = devices.iter().flat_map(|device| {
            values(device).map(|(operation, value)| {
                let mut map = Map::new();
                put(&mut map, "major", device.major);
                put(&mut map, "minor", device.minor);
                map.insert("op".to_owned(), operation.into());
                put(&mut map, "value", value);
                Value::from(map)
            })
        });
        lines.collect()
    };
    let mut map = Map::new();
    if !devices.is_empty() {
        let bytes = entries(|device| {
            let IoDevice { read_bytes, write_bytes, discard_bytes, .. } = *device;
            [("Read", read_bytes), ("Write", write_bytes), ("Discard", discard_bytes)]
        });
        let operations = entries(|device| {
            let IoDevice { read_operations, write_operations, discard_operations, .. } = *device;
            [
                ("Read", read_operations),
                ("Write", write_operations),
                ("Discard", discard_operations),
            ]
        });
        map.insert("ioServiceBytesRecursive".to_owned(), bytes.into());
        map.insert("ioServicedRecursive".to_owned(), operations.into());
    }
    put_pressure(&mut map, pressure);
    map.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_there_whatever_was_counted() {
        let data = data(&Stats::default());
        let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
        let expected = [
            "blkio",
            "cpu",
            "cpuset",
            "hugetlb",
            "intel_rdt",
            "memory",
            "network_interfaces",
            "pids",
        ];
        assert_eq!(keys, expected);
        assert_eq!(data["cpu"]["usage"], json!({"kernel": 0, "user": 0}));
    }

    #[test]
    fn swap_is_counted_with_memory() {
        let memory = MemoryStats {
            usage_bytes: 5,
            limit_bytes: Some(10),
            swap_usage_bytes: Some(2),
            swap_limit_bytes: Some(3),
            ..MemoryStats::default()
        };
        let value = super::memory(&memory, None);
        assert_eq!(value["usage"], json!({"limit": 10, "usage": 5, "failcnt": 0}));
        assert_eq!(value["swap"], json!({"limit": 13, "usage": 7, "failcnt": 0}));
    }

    #[test]
    fn devices_have_a_line_for_each_operation() {
        let device = IoDevice { major: 8, read_bytes: 4, ..IoDevice::default() };
        let value = block_io(&[device], None);
        let expected = json!({"major": 8, "op": "Read", "value": 4});
        assert_eq!(value["ioServiceBytesRecursive"][0], expected);
    }
}
