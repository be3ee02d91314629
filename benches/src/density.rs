//! What a sleeping container costs: memory and threads of its shim, memory of the daemon, and how a thousand of them are
//! started, listed, adopted and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use support::api::{self, Answer};
use support::engine::{Engine, pack_busybox};

use crate::peers::{Docker, Podman, brig_with_image, quiet};
use crate::sample::{Figure, Report, Series, in_milliseconds, side_by_side};

/// Containers that are started or removed side by side.
const AT_ONCE: usize = 8;
/// How often the list is asked for.
const LISTS: usize = 11;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Containers whose memory is measured, with each engine
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// Containers that are started, listed, adopted and removed, with Brig; 0 for none
    #[arg(long, default_value_t = 1000)]
    many: usize,
    /// Without docker and podman
    #[arg(long)]
    alone: bool,
}

/// What one engine's containers cost.
struct Cost {
    name: &'static str,
    shim_pss_kib: Vec<f64>,
    shim_threads: Vec<f64>,
    daemon_pss_mib: f64,
    start_seconds: f64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let archive = directory.path().join("busybox.tar");
    pack_busybox(&archive);
    let mut report = Report::default();
    let mut engine = brig_with_image("density", &archive)?;
    let mut costs = vec![of_brig(&engine, options.containers)?];
    if options.many > 0 {
        many(&mut engine, options, &mut report)?;
    }
    if !options.alone {
        costs.extend(report.present("docker", of_docker(&archive, options.containers)));
        costs.extend(report.present("podman", of_podman(&archive, options.containers)));
    }
    let count = options.containers;
    let mut figure = |title: String, unit, values: &dyn Fn(&Cost) -> Vec<f64>| {
        let of = |cost: &Cost| Series { name: cost.name.into(), values: values(cost) };
        report.figures.push(Figure { title, unit, series: costs.iter().map(of).collect() });
    };
    figure(format!("shim of a sleeping container, PSS, {count} containers"), "KiB", &|cost| {
        cost.shim_pss_kib.clone()
    });
    figure("threads of a shim".into(), "threads", &|cost| cost.shim_threads.clone());
    figure(format!("daemons with {count} idle containers, PSS"), "MiB", &|cost| {
        vec![cost.daemon_pss_mib]
    });
    figure(format!("start {count} containers, {AT_ONCE} at a time"), "s", &|cost| {
        vec![cost.start_seconds]
    });
    Ok(report)
}

fn of_brig(engine: &Engine, count: usize) -> Result<Cost> {
    let socket = engine.path("brig.sock");
    let start_seconds = start(&socket, 0..count)?;
    let directory = engine.path("state").display().to_string();
    let shims =
        processes(|line| line.contains("containerd-shim-brig") && line.contains(&directory));
    ensure!(shims.len() == count, "{} shims for {count} containers", shims.len());
    Ok(Cost {
        name: "brig",
        shim_pss_kib: shims.iter().map(|pid| pss_kib(*pid)).collect(),
        shim_threads: shims.iter().map(|pid| threads(*pid)).collect(),
        daemon_pss_mib: pss_kib(engine.daemon_pid()) / 1024.0,
        start_seconds,
    })
}

/// A thousand containers, the first of which are there already.
fn many(engine: &mut Engine, options: &Options, report: &mut Report) -> Result<()> {
    let socket = engine.path("brig.sock");
    let count = options.many.max(options.containers);
    let started = start(&socket, options.containers..count)?;
    let mut lists = Series::new("GET /containers/json");
    let mut commands = Series::new("brig ps");
    for _ in 0..LISTS {
        let before = Instant::now();
        let listed = running(&socket)?;
        lists.values.push(in_milliseconds(before.elapsed()));
        ensure!(listed == count, "{listed} of {count} containers are listed");
        let before = Instant::now();
        let output = engine.brig_command(&["ps", "--quiet"]).output().context("run brig ps")?;
        commands.values.push(in_milliseconds(before.elapsed()));
        ensure!(output.status.success(), "brig ps: {}", output.status);
    }
    let memory = pss_kib(engine.daemon_pid()) / 1024.0;
    let before = Instant::now();
    engine.crash_and_restart();
    let adopted = running(&socket)?;
    let adoption = before.elapsed().as_secs_f64();
    ensure!(adopted == count, "{adopted} of {count} containers were adopted");
    let before = Instant::now();
    remove_all(&socket)?;
    let removal = before.elapsed().as_secs_f64();
    let mut one = |title: String, unit, value: f64| {
        let series = vec![Series { name: "brig".into(), values: vec![value] }];
        report.figures.push(Figure { title, unit, series });
    };
    let more = count - options.containers;
    one(format!("start {more} more containers, {AT_ONCE} at a time"), "s", started);
    one(format!("brigd with {count} idle containers, PSS"), "MiB", memory);
    one(format!("brigd killed and started: {count} containers adopted"), "s", adoption);
    one(format!("remove {count} running containers, {AT_ONCE} at a time"), "s", removal);
    let title = format!("list {count} containers");
    report.figures.push(Figure { title, unit: "ms", series: vec![lists, commands] });
    Ok(())
}

fn of_docker(archive: &Path, count: usize) -> Result<Cost> {
    let docker = Docker::with_image(archive)?;
    let start_seconds = start(&docker.socket(), 0..count)?;
    let directory = docker.directory().display().to_string();
    let shims = processes(|line| {
        line.starts_with("/usr/bin/containerd-shim-runc") && line.contains(&directory)
    });
    let daemons = processes(|line| {
        line.contains(&directory)
            && (line.starts_with("dockerd") || line.starts_with("containerd\0"))
    });
    let cost = Cost {
        name: "docker",
        shim_pss_kib: shims.iter().map(|pid| pss_kib(*pid)).collect(),
        shim_threads: shims.iter().map(|pid| threads(*pid)).collect(),
        daemon_pss_mib: daemons.iter().map(|pid| pss_kib(*pid)).sum::<f64>() / 1024.0,
        start_seconds,
    };
    remove_all(&docker.socket())?;
    Ok(cost)
}

fn of_podman(archive: &Path, count: usize) -> Result<Cost> {
    let podman = Podman::with_image(archive)?;
    let before = Instant::now();
    side_by_side(0..count, AT_ONCE, |_| {
        quiet(&mut podman.command(&["run", "--detach", "busybox", "sleep", "100000"]))
    })?;
    let start_seconds = before.elapsed().as_secs_f64();
    let directory = podman.directory().display().to_string();
    let monitors =
        processes(|line| line.starts_with("/usr/bin/conmon\0") && line.contains(&directory));
    let cost = Cost {
        name: "podman (conmon)",
        shim_pss_kib: monitors.iter().map(|pid| pss_kib(*pid)).collect(),
        shim_threads: monitors.iter().map(|pid| threads(*pid)).collect(),
        daemon_pss_mib: 0.0,
        start_seconds,
    };
    quiet(&mut podman.command(&["rm", "--force", "--time", "0", "--all"]))?;
    Ok(cost)
}

/// Starts sleeping containers; answers how many seconds that took.
fn start(socket: &Path, numbers: std::ops::Range<usize>) -> Result<f64> {
    let before = Instant::now();
    side_by_side(numbers, AT_ONCE, |number| {
        let body = r#"{"Image":"busybox","Cmd":["sleep","100000"]}"#;
        let path = format!("/v1.41/containers/create?name=density-{number}");
        succeeded(&path, api::call(socket, "POST", &path, body)?)?;
        let path = format!("/v1.41/containers/density-{number}/start");
        succeeded(&path, api::call(socket, "POST", &path, "")?)?;
        Ok(())
    })?;
    Ok(before.elapsed().as_secs_f64())
}

fn running(socket: &Path) -> Result<usize> {
    let answer = succeeded("list", api::call(socket, "GET", "/v1.41/containers/json", "")?)?;
    Ok(answer.json().as_array().map_or(0, Vec::len))
}

fn remove_all(socket: &Path) -> Result<()> {
    let listed = api::call(socket, "GET", "/v1.41/containers/json?all=1", "")?.json();
    let ids: Vec<String> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| Some(container["Id"].as_str()?.to_owned()))
        .collect();
    side_by_side(0..ids.len(), AT_ONCE, |number| {
        let path = format!("/v1.41/containers/{}?force=1", ids[number]);
        succeeded(&path, api::call(socket, "DELETE", &path, "")?).map(drop)
    })
}

fn succeeded(what: &str, answer: Answer) -> Result<Answer> {
    if answer.is_success() { Ok(answer) } else { bail!("{what}: {answer:?}") }
}

/// The processes whose command line, with its zero bytes, is wanted.
fn processes(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        wanted(&String::from_utf8_lossy(&line))
    })
    .collect()
}

/// Proportional set size: each shared page counted by the share of its users.
fn pss_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}

fn threads(pid: u32) -> f64 {
    let count = fs::read_dir(PathBuf::from(format!("/proc/{pid}/task"))).map_or(0, Iterator::count);
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
