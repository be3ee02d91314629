//! `brig stats`.

use std::collections::BTreeMap;

use anyhow::Result;
use brig_engine_api::client::Client;
use brig_engine_api::models::ContainerStatsResponse;
use brig_engine_api::query;
use futures_util::future::join_all;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::list::{Column, List, ListOptions, Row};

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// Clears the screen and goes to its top left corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what containers use
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Containers that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Show the figures once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    list: ListOptions,
    /// The containers; all that run when absent
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    loop {
        let names = names(&client, &arguments).await?;
        // Each reading takes the daemon a second, which is what paces this loop.
        let readings = join_all(names.iter().map(|name| reading(&client, name))).await;
        let mut rows = Vec::new();
        for (name, reading) in names.iter().zip(readings) {
            match reading {
                Ok(Some(stats)) => rows.push(row(&stats, arguments.no_trunc)),
                Ok(None) => {}
                // One that is asked for by name must be there; one of all may have gone meanwhile.
                Err(error) if arguments.containers.contains(name) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let list =
            List { columns: COLUMNS, key: "ID", headers: &[("CONTAINER", "Container")], rows };
        if !arguments.no_stream && arguments.list.format.is_none() {
            print!("{CLEAR}");
        }
        list.print(&arguments.list)?;
        if arguments.no_stream {
            return Ok(Exit::SUCCESS);
        }
        if names.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

async fn names(client: &Client, arguments: &Arguments) -> Result<Vec<String>> {
    if !arguments.containers.is_empty() {
        return Ok(arguments.containers.clone());
    }
    let query = query::ListContainers { all: arguments.all, ..Default::default() };
    let containers = client.list_containers(&query).await?;
    Ok(containers.into_iter().filter_map(|listed| listed.container.id).collect())
}

async fn reading(client: &Client, name: &str) -> Result<Option<ContainerStatsResponse>> {
    let query = query::ContainerStats { stream: Some(false), one_shot: false };
    let mut stream = client.container_stats(name, &query).await?;
    Ok(stream.next().await.transpose()?)
}

fn row(stats: &ContainerStatsResponse, whole: bool) -> Row {
    let id = stats.id.as_deref().unwrap_or_default();
    let name = stats.name.as_deref().unwrap_or_default().trim_start_matches('/');
    let (used, limit) = memory(stats);
    let networks = stats.networks.clone().unwrap_or_default();
    let received: u64 = networks.values().filter_map(|network| network.rx_bytes).sum();
    let sent: u64 = networks.values().filter_map(|network| network.tx_bytes).sum();
    let (read, written) = block(stats);
    let pids = stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default();
    Row::new()
        .with("Container", name)
        .with("ID", if whole { id } else { human::short_id(id) })
        .with("Name", name)
        .with("CPUPerc", format!("{:.2}%", cpu_percent(stats)))
        .with("MemUsage", format!("{} / {}", human::binary_size(used), human::binary_size(limit)))
        .with("MemPerc", format!("{:.2}%", ratio(used, limit) * 100.0))
        .with("NetIO", format!("{} / {}", human::size(received), human::size(sent)))
        .with("BlockIO", format!("{} / {}", human::size(read), human::size(written)))
        .with("PIDs", pids.to_string())
}

/// Usage without the page cache that could be dropped, and the limit.
fn memory(stats: &ContainerStatsResponse) -> (u64, u64) {
    let memory = stats.memory_stats.clone().unwrap_or_default();
    let detail = memory.stats.unwrap_or_default();
    // cgroup v1 calls it total_inactive_file, v2 inactive_file.
    let cache = detail
        .get("total_inactive_file")
        .or_else(|| detail.get("inactive_file"))
        .copied()
        .unwrap_or(0);
    let usage = memory.usage.unwrap_or_default();
    (usage.saturating_sub(cache), memory.limit.unwrap_or_default())
}

/// The container's share of one CPU since the reading before, in per cent.
fn cpu_percent(stats: &ContainerStatsResponse) -> f64 {
    let now = stats.cpu_stats.clone().unwrap_or_default();
    let before = stats.precpu_stats.clone().unwrap_or_default();
    let total = |stats: &brig_engine_api::models::ContainerCpuStats| {
        stats.cpu_usage.as_ref().and_then(|usage| usage.total_usage).unwrap_or_default()
    };
    let used = total(&now).saturating_sub(total(&before));
    let system = now
        .system_cpu_usage
        .unwrap_or_default()
        .saturating_sub(before.system_cpu_usage.unwrap_or_default());
    ratio(used, system) * f64::from(now.online_cpus.unwrap_or(1)) * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "two decimals of a percentage are shown")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn block(stats: &ContainerStatsResponse) -> (u64, u64) {
    let entries = stats
        .blkio_stats
        .as_ref()
        .and_then(|block| block.io_service_bytes_recursive.clone())
        .unwrap_or_default();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for entry in entries {
        *sums.entry(entry.op.unwrap_or_default().to_lowercase()).or_default() +=
            entry.value.unwrap_or_default();
    }
    (sums.get("read").copied().unwrap_or(0), sums.get("write").copied().unwrap_or(0))
}
