//! The runtime's measurements in containerd's terms.

use brig_runtime::cgroup::Stats;
use brig_shim_protocol::metrics::{v1, v2};
use brig_shim_protocol::types::Any;

/// containerd writes an absent limit as the largest number, as the kernel's "max" reads in Go.
const UNLIMITED: u64 = u64::MAX;

/// Measurements as the message of the cgroup version that the host's controllers are on.
pub(crate) fn to_any(stats: &Stats) -> Any {
    if cgroups_are_v2() { Any::pack(&to_v2(stats)) } else { Any::pack(&to_v1(stats)) }
}

/// A pure version 2 host; on a hybrid one the controllers are version 1.
fn cgroups_are_v2() -> bool {
    brig_runtime::cgroup::Hierarchies::detect()
        .is_ok_and(|hierarchies| hierarchies.mode() == brig_runtime::cgroup::Mode::V2)
}

fn to_v1(stats: &Stats) -> v1::Metrics {
    let cpu = stats.cpu.as_ref().map(|cpu| v1::CpuStat {
        usage: Some(v1::CpuUsage {
            total: cpu.usage_nanoseconds,
            kernel: cpu.system_nanoseconds,
            user: cpu.user_nanoseconds,
            per_cpu: cpu.per_cpu_nanoseconds.clone(),
        }),
        throttling: Some(v1::Throttle {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_nanoseconds,
        }),
    });
    let pids = stats
        .pids
        .as_ref()
        .map(|pids| v1::PidsStat { current: pids.current, limit: pids.limit.unwrap_or(0) });
    let hugetlb = stats.hugetlb.iter().map(|(size, huge)| v1::HugetlbStat {
        usage: huge.usage_bytes,
        max: huge.max_usage_bytes.unwrap_or(0),
        failcnt: huge.fail_count,
        pagesize: size.clone(),
    });
    v1::Metrics {
        hugetlb: hugetlb.collect(),
        pids,
        cpu,
        memory: stats.memory.as_ref().map(memory_v1),
        blkio: Some(block_v1(stats)),
        memory_oom_control: stats.memory.as_ref().map(|memory| v1::MemoryOomControl {
            oom_kill: memory.oom_kills,
            ..v1::MemoryOomControl::default()
        }),
        ..v1::Metrics::default()
    }
}

fn memory_v1(memory: &brig_runtime::cgroup::MemoryStats) -> v1::MemoryStat {
    let value = |name: &str| memory.stat.get(name).copied().unwrap_or(0);
    v1::MemoryStat {
        cache: value("cache"),
        rss: value("rss"),
        rss_huge: value("rss_huge"),
        mapped_file: value("mapped_file"),
        dirty: value("dirty"),
        writeback: value("writeback"),
        pg_pg_in: value("pgpgin"),
        pg_pg_out: value("pgpgout"),
        pg_fault: value("pgfault"),
        pg_maj_fault: value("pgmajfault"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        hierarchical_memory_limit: value("hierarchical_memory_limit"),
        hierarchical_swap_limit: value("hierarchical_memsw_limit"),
        total_cache: value("total_cache"),
        total_rss: value("total_rss"),
        total_rss_huge: value("total_rss_huge"),
        total_mapped_file: value("total_mapped_file"),
        total_dirty: value("total_dirty"),
        total_writeback: value("total_writeback"),
        total_pg_pg_in: value("total_pgpgin"),
        total_pg_pg_out: value("total_pgpgout"),
        total_pg_fault: value("total_pgfault"),
        total_pg_maj_fault: value("total_pgmajfault"),
        total_inactive_anon: value("total_inactive_anon"),
        total_active_anon: value("total_active_anon"),
        total_inactive_file: value("total_inactive_file"),
        total_active_file: value("total_active_file"),
        total_unevictable: value("total_unevictable"),
        usage: Some(v1::MemoryEntry {
            limit: memory.limit_bytes.unwrap_or(UNLIMITED),
            usage: memory.usage_bytes,
            max: memory.max_usage_bytes.unwrap_or(0),
            failcnt: memory.fail_count,
        }),
        swap: memory.swap_usage_bytes.map(|usage| v1::MemoryEntry {
            limit: memory.swap_limit_bytes.unwrap_or(UNLIMITED),
            usage,
            ..v1::MemoryEntry::default()
        }),
        kernel: memory
            .kernel_usage_bytes
            .map(|usage| v1::MemoryEntry { usage, ..v1::MemoryEntry::default() }),
        kernel_tcp: None,
    }
}

fn block_v1(stats: &Stats) -> v1::BlkIoStat {
    let mut block = v1::BlkIoStat::default();
    for device in &stats.io {
        let entry = |operation: &str, value: u64| v1::BlkIoEntry {
            op: operation.to_owned(),
            device: String::new(),
            major: device.major,
            minor: device.minor,
            value,
        };
        block
            .io_service_bytes_recursive
            .extend([entry("Read", device.read_bytes), entry("Write", device.write_bytes)]);
        block.io_serviced_recursive.extend([
            entry("Read", device.read_operations),
            entry("Write", device.write_operations),
        ]);
    }
    block
}

fn to_v2(stats: &Stats) -> v2::Metrics {
    let cpu = stats.cpu.as_ref().map(|cpu| v2::CpuStat {
        usage_usec: cpu.usage_nanoseconds / 1000,
        user_usec: cpu.user_nanoseconds / 1000,
        system_usec: cpu.system_nanoseconds / 1000,
        nr_periods: cpu.periods,
        nr_throttled: cpu.throttled_periods,
        throttled_usec: cpu.throttled_nanoseconds / 1000,
    });
    let pids = stats
        .pids
        .as_ref()
        .map(|pids| v2::PidsStat { current: pids.current, limit: pids.limit.unwrap_or(0) });
    let usage = stats.io.iter().map(|device| v2::IoEntry {
        major: device.major,
        minor: device.minor,
        rbytes: device.read_bytes,
        wbytes: device.write_bytes,
        rios: device.read_operations,
        wios: device.write_operations,
    });
    let hugetlb = stats.hugetlb.iter().map(|(size, huge)| v2::HugeTlbStat {
        current: huge.usage_bytes,
        max: huge.max_usage_bytes.unwrap_or(0),
        pagesize: size.clone(),
    });
    v2::Metrics {
        pids,
        cpu,
        memory: stats.memory.as_ref().map(memory_v2),
        rdma: None,
        io: Some(v2::IoStat { usage: usage.collect() }),
        hugetlb: hugetlb.collect(),
        memory_events: stats.memory.as_ref().map(|memory| v2::MemoryEvents {
            oom: memory.oom_events,
            oom_kill: memory.oom_kills,
            ..v2::MemoryEvents::default()
        }),
    }
}

fn memory_v2(memory: &brig_runtime::cgroup::MemoryStats) -> v2::MemoryStat {
    let value = |name: &str| memory.stat.get(name).copied().unwrap_or(0);
    v2::MemoryStat {
        anon: value("anon"),
        file: value("file"),
        kernel_stack: value("kernel_stack"),
        slab: value("slab"),
        sock: value("sock"),
        shmem: value("shmem"),
        file_mapped: value("file_mapped"),
        file_dirty: value("file_dirty"),
        file_writeback: value("file_writeback"),
        anon_thp: value("anon_thp"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        slab_reclaimable: value("slab_reclaimable"),
        slab_unreclaimable: value("slab_unreclaimable"),
        pgfault: value("pgfault"),
        pgmajfault: value("pgmajfault"),
        workingset_refault: value("workingset_refault_anon") + value("workingset_refault_file"),
        workingset_activate: value("workingset_activate_anon") + value("workingset_activate_file"),
        workingset_nodereclaim: value("workingset_nodereclaim"),
        pgrefill: value("pgrefill"),
        pgscan: value("pgscan"),
        pgsteal: value("pgsteal"),
        pgactivate: value("pgactivate"),
        pgdeactivate: value("pgdeactivate"),
        pglazyfree: value("pglazyfree"),
        pglazyfreed: value("pglazyfreed"),
        thp_fault_alloc: value("thp_fault_alloc"),
        thp_collapse_alloc: value("thp_collapse_alloc"),
        usage: memory.usage_bytes,
        usage_limit: memory.limit_bytes.unwrap_or(UNLIMITED),
        swap_usage: memory.swap_usage_bytes.unwrap_or(0),
        swap_limit: memory.swap_limit_bytes.unwrap_or(UNLIMITED),
        max_usage: memory.max_usage_bytes.unwrap_or(0),
        swap_max_usage: 0,
    }
}
