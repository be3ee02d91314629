//! Resource use: the shim's metrics put into the Engine API's form, with the network's and the machine's numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use brig_shim_protocol::metrics::{v1, v2};
use brig_shim_protocol::types::Any;
use futures_util::stream;

use super::requests::StatsRequest;
use super::table::Handle;
use super::{Shared, blocking_with, now};
use crate::error::{Error, Result};
use crate::models::{
    ContainerBlkioStatEntry, ContainerBlkioStats, ContainerCpuStats, ContainerCpuUsage,
    ContainerMemoryStats, ContainerNetworkStats, ContainerPidsStats, ContainerStatsResponse,
    ContainerStorageStats, ContainerThrottlingData,
};
use crate::stream::StatsStream;

/// Time between samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Clock ticks in `/proc/stat` (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;
/// Before the first sample there is none; Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The resource use of a container.
pub(super) async fn stats(
    shared: &Arc<Shared>,
    container: &str,
    request: StatsRequest,
) -> Result<StatsStream> {
    let handle = shared.table.find(container)?;
    let state = Sampler { shared: Arc::clone(shared), handle, request, earlier: None, samples: 0 };
    Ok(Box::pin(stream::unfold(state, |mut state| async move {
        let sample = state.next().await?;
        Some((sample, state))
    })))
}

struct Sampler {
    shared: Arc<Shared>,
    handle: Handle,
    request: StatsRequest,
    earlier: Option<(String, ContainerCpuStats)>,
    samples: u64,
}

impl Sampler {
    async fn next(&mut self) -> Option<Result<ContainerStatsResponse>> {
        if self.samples > 0 && !self.request.stream {
            return None;
        }
        if self.samples == 0 && !self.request.stream && !self.request.one_shot {
            // One answer, but with something to compare it with.
            let first = sample(&self.shared, &self.handle).await;
            if let Ok(first) = first {
                self.remember(&first);
            }
            tokio::time::sleep(INTERVAL).await;
        }
        if self.samples > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        if self.handle.view().removed {
            return None;
        }
        self.samples += 1;
        let mut sample = match sample(&self.shared, &self.handle).await {
            Ok(sample) => sample,
            Err(error) => {
                // It has just ended: an empty sample, as for any container that does not run.
                tracing::debug!("sample: {}", error.report());
                empty(&self.handle)
            }
        };
        let (preread, precpu) =
            self.earlier.take().unwrap_or_else(|| (NEVER.to_owned(), ContainerCpuStats::default()));
        sample.preread = Some(preread);
        sample.precpu_stats = Some(filled(precpu));
        self.remember(&sample);
        Some(Ok(sample))
    }

    fn remember(&mut self, sample: &ContainerStatsResponse) {
        self.earlier = sample.read.clone().zip(sample.cpu_stats.clone());
    }
}

/// Absent numbers would vanish from the answer; clients expect zeros.
fn filled(cpu: ContainerCpuStats) -> ContainerCpuStats {
    let usage = cpu.cpu_usage.unwrap_or_default();
    ContainerCpuStats {
        cpu_usage: Some(ContainerCpuUsage {
            total_usage: Some(usage.total_usage.unwrap_or(0)),
            percpu_usage: usage.percpu_usage,
            usage_in_kernelmode: Some(usage.usage_in_kernelmode.unwrap_or(0)),
            usage_in_usermode: Some(usage.usage_in_usermode.unwrap_or(0)),
        }),
        system_cpu_usage: Some(cpu.system_cpu_usage.unwrap_or(0)),
        online_cpus: Some(cpu.online_cpus.unwrap_or(0)),
        throttling_data: Some(cpu.throttling_data.unwrap_or(ContainerThrottlingData {
            periods: Some(0),
            throttled_periods: Some(0),
            throttled_time: Some(0),
        })),
    }
}

fn empty(handle: &Handle) -> ContainerStatsResponse {
    let view = handle.view();
    ContainerStatsResponse {
        id: Some(view.record.id.clone()),
        name: Some(format!("/{}", view.record.name)),
        os_type: Some("linux".into()),
        read: Some(NEVER.into()),
        preread: Some(NEVER.into()),
        cpu_stats: Some(filled(ContainerCpuStats::default())),
        precpu_stats: Some(filled(ContainerCpuStats::default())),
        memory_stats: Some(ContainerMemoryStats::default()),
        pids_stats: Some(ContainerPidsStats::default()),
        blkio_stats: Some(ContainerBlkioStats::default()),
        num_procs: Some(0),
        storage_stats: Some(ContainerStorageStats::default()),
        ..ContainerStatsResponse::default()
    }
}

async fn sample(shared: &Arc<Shared>, handle: &Handle) -> Result<ContainerStatsResponse> {
    let Ok(shim) = handle.shim() else { return Ok(empty(handle)) };
    let metrics = shim.stats().await?;
    let view = handle.view();
    let pid = view.record.state.pid;
    let own_network = view.record.networks.values().any(|attachment| attachment.endpoint.is_some());
    let (system, networks, memory_total) = blocking_with(shared, move |_| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let networks = own_network.then(|| parse_networks(&read(&format!("/proc/{pid}/net/dev"))));
        Ok((
            parse_system_ns(&read("/proc/stat")),
            networks,
            parse_memory_total(&read("/proc/meminfo")),
        ))
    })
    .await?;
    let mut response = ContainerStatsResponse { read: Some(now()), networks, ..empty(handle) };
    let mut cpu = if metrics.is::<v1::Metrics>() {
        from_v1(&metrics, &mut response, memory_total)?
    } else {
        from_v2(&metrics, &mut response, memory_total)?
    };
    cpu.system_cpu_usage = Some(system);
    let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cpu.online_cpus = u32::try_from(online).ok();
    response.cpu_stats = Some(filled(cpu));
    Ok(response)
}

/// A limit that is no limit shows as the machine's memory.
fn limit(bytes: u64, memory_total: u64) -> Option<u64> {
    Some(if bytes == 0 || bytes > memory_total { memory_total } else { bytes })
}

fn from_v1(
    any: &Any,
    response: &mut ContainerStatsResponse,
    memory_total: u64,
) -> Result<ContainerCpuStats> {
    let metrics: v1::Metrics =
        any.unpack().map_err(|source| Error::invalid("read the statistics").with_source(source))?;
    if let Some(memory) = &metrics.memory {
        let usage = memory.usage.clone().unwrap_or_default();
        let stats = [
            ("cache", memory.cache),
            ("rss", memory.rss),
            ("rss_huge", memory.rss_huge),
            ("mapped_file", memory.mapped_file),
            ("dirty", memory.dirty),
            ("writeback", memory.writeback),
            ("pgpgin", memory.pg_pg_in),
            ("pgpgout", memory.pg_pg_out),
            ("pgfault", memory.pg_fault),
            ("pgmajfault", memory.pg_maj_fault),
            ("inactive_anon", memory.inactive_anon),
            ("active_anon", memory.active_anon),
            ("inactive_file", memory.inactive_file),
            ("active_file", memory.active_file),
            ("unevictable", memory.unevictable),
            ("hierarchical_memory_limit", memory.hierarchical_memory_limit),
            ("total_inactive_file", memory.total_inactive_file),
            ("total_cache", memory.total_cache),
            ("total_rss", memory.total_rss),
        ];
        response.memory_stats = Some(ContainerMemoryStats {
            usage: Some(usage.usage),
            max_usage: Some(usage.max),
            failcnt: Some(usage.failcnt),
            limit: limit(usage.limit, memory_total),
            stats: Some(stats.map(|(name, value)| (name.to_owned(), value)).into()),
            ..ContainerMemoryStats::default()
        });
    }
    response.pids_stats = metrics.pids.as_ref().map(|pids| pids_stats(pids.current, pids.limit));
    response.blkio_stats = metrics.blkio.as_ref().map(|blkio| ContainerBlkioStats {
        io_service_bytes_recursive: Some(entries_v1(&blkio.io_service_bytes_recursive)),
        io_serviced_recursive: Some(entries_v1(&blkio.io_serviced_recursive)),
        ..ContainerBlkioStats::default()
    });
    let cpu = metrics.cpu.unwrap_or_default();
    let usage = cpu.usage.unwrap_or_default();
    let throttling = cpu.throttling.unwrap_or_default();
    Ok(ContainerCpuStats {
        cpu_usage: Some(ContainerCpuUsage {
            total_usage: Some(usage.total),
            percpu_usage: Some(usage.per_cpu).filter(|list| !list.is_empty()),
            usage_in_kernelmode: Some(usage.kernel),
            usage_in_usermode: Some(usage.user),
        }),
        throttling_data: Some(ContainerThrottlingData {
            periods: Some(throttling.periods),
            throttled_periods: Some(throttling.throttled_periods),
            throttled_time: Some(throttling.throttled_time),
        }),
        ..ContainerCpuStats::default()
    })
}

fn entries_v1(entries: &[v1::BlkIoEntry]) -> Vec<ContainerBlkioStatEntry> {
    let entry = |entry: &v1::BlkIoEntry| ContainerBlkioStatEntry {
        major: Some(entry.major),
        minor: Some(entry.minor),
        op: Some(entry.op.clone()),
        value: Some(entry.value),
    };
    entries.iter().map(entry).collect()
}

fn from_v2(
    any: &Any,
    response: &mut ContainerStatsResponse,
    memory_total: u64,
) -> Result<ContainerCpuStats> {
    let metrics: v2::Metrics =
        any.unpack().map_err(|source| Error::invalid("read the statistics").with_source(source))?;
    if let Some(memory) = &metrics.memory {
        let stats = [
            ("anon", memory.anon),
            ("file", memory.file),
            ("kernel_stack", memory.kernel_stack),
            ("slab", memory.slab),
            ("sock", memory.sock),
            ("shmem", memory.shmem),
            ("file_mapped", memory.file_mapped),
            ("file_dirty", memory.file_dirty),
            ("file_writeback", memory.file_writeback),
            ("inactive_anon", memory.inactive_anon),
            ("active_anon", memory.active_anon),
            ("inactive_file", memory.inactive_file),
            ("active_file", memory.active_file),
            ("unevictable", memory.unevictable),
            ("pgfault", memory.pgfault),
            ("pgmajfault", memory.pgmajfault),
        ];
        response.memory_stats = Some(ContainerMemoryStats {
            usage: Some(memory.usage),
            limit: limit(memory.usage_limit, memory_total),
            stats: Some(stats.map(|(name, value)| (name.to_owned(), value)).into()),
            ..ContainerMemoryStats::default()
        });
    }
    response.pids_stats = metrics.pids.as_ref().map(|pids| pids_stats(pids.current, pids.limit));
    let io = metrics.io.unwrap_or_default();
    let entry = |entry: &v2::IoEntry, op: &str, value: u64| ContainerBlkioStatEntry {
        major: Some(entry.major),
        minor: Some(entry.minor),
        op: Some(op.to_owned()),
        value: Some(value),
    };
    let bytes = io
        .usage
        .iter()
        .flat_map(|use_| [entry(use_, "read", use_.rbytes), entry(use_, "write", use_.wbytes)]);
    response.blkio_stats = Some(ContainerBlkioStats {
        io_service_bytes_recursive: Some(bytes.collect()),
        ..Default::default()
    });
    let cpu = metrics.cpu.unwrap_or_default();
    Ok(ContainerCpuStats {
        cpu_usage: Some(ContainerCpuUsage {
            total_usage: Some(cpu.usage_usec.saturating_mul(1000)),
            percpu_usage: None,
            usage_in_kernelmode: Some(cpu.system_usec.saturating_mul(1000)),
            usage_in_usermode: Some(cpu.user_usec.saturating_mul(1000)),
        }),
        throttling_data: Some(ContainerThrottlingData {
            periods: Some(cpu.nr_periods),
            throttled_periods: Some(cpu.nr_throttled),
            throttled_time: Some(cpu.throttled_usec.saturating_mul(1000)),
        }),
        ..ContainerCpuStats::default()
    })
}

fn pids_stats(current: u64, limit: u64) -> ContainerPidsStats {
    ContainerPidsStats { current: Some(current), limit: Some(limit) }
}

/// CPU time of the whole machine, from the first line of `/proc/stat`: user to steal, without guests (counted in user).
fn parse_system_ns(text: &str) -> u64 {
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_ascii_whitespace().take(8).filter_map(|word| word.parse::<u64>().ok());
    ticks.fold(0_u64, u64::saturating_add).saturating_mul(TICK_NS)
}

fn parse_memory_total(text: &str) -> u64 {
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

fn parse_networks(text: &str) -> HashMap<String, ContainerNetworkStats> {
    let mut networks = HashMap::new();
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> =
            rest.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let name = name.trim();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            continue;
        };
        if name == "lo" {
            continue;
        }
        let stats = ContainerNetworkStats {
            rx_bytes: Some(rx_bytes),
            rx_packets: Some(rx_packets),
            rx_errors: Some(rx_errors),
            rx_dropped: Some(rx_dropped),
            tx_bytes: Some(tx_bytes),
            tx_packets: Some(tx_packets),
            tx_errors: Some(tx_errors),
            tx_dropped: Some(tx_dropped),
            ..ContainerNetworkStats::default()
        };
        networks.insert(name.to_owned(), stats);
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(parse_system_ns("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1"), 36 * TICK_NS);
        assert_eq!(parse_memory_total("MemTotal:       1024 kB\n"), 1 << 20);
        let table = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let networks = parse_networks(table);
        assert_eq!(networks.len(), 1);
        assert_eq!((networks["eth0"].rx_bytes, networks["eth0"].tx_bytes), (Some(10), Some(50)));
    }
}
