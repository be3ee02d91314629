//! Whether fast writers lose lines, see lines twice, or wait: ten containers at ten thousand lines a second each, logs
//! rotated, and brigd killed midway and started again.
//!
//! The writer is this very program, bound into the containers with the host's libraries: each line is one write(2), and
//! the last line says how long the longest took.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use support::api;
use support::engine::pack_busybox;

use crate::peers::{Docker, brig_with_image};
use crate::sample::{Figure, Report, Series};

/// Lines are written in bursts, as many a second.
const BURSTS_PER_SECOND: u32 = 100;
/// Text after the number, so that a line has about the length of one of a web server's.
const PADDING: &str = "GET /index.html HTTP/1.1 200 5316 - Mozilla/5.0 (X11; Linux x86_64) pad";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Containers
    #[arg(long, default_value_t = 10)]
    containers: usize,
    /// Lines a second, of each
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Without docker
    #[arg(long)]
    alone: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WriteOptions {
    rate: u32,
    seconds: u32,
}

/// What one container's log came to.
#[derive(Debug, Default)]
struct Tally {
    lost: u64,
    doubled: u64,
    longest_ms: f64,
    seconds: f64,
}

/// A figure of the report: its title, its unit, and where its value is.
type Aspect = (&'static str, &'static str, fn(&Tally) -> f64);

/// The container's part.
pub(crate) fn write_lines(options: &WriteOptions) -> Result<Report> {
    let burst = u64::from(options.rate / BURSTS_PER_SECOND);
    let pause = Duration::from_secs(1) / BURSTS_PER_SECOND;
    let mut output = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    let (mut longest, mut number) = (Duration::ZERO, 0_u64);
    let start = Instant::now();
    for turn in 1..=options.seconds * BURSTS_PER_SECOND {
        for _ in 0..burst {
            let line = format!("line {number:010} {PADDING}\n");
            let before = Instant::now();
            output.write_all(line.as_bytes())?;
            longest = longest.max(before.elapsed());
            number += 1;
        }
        std::thread::sleep((pause * turn).saturating_sub(start.elapsed()));
    }
    let taken = start.elapsed().as_secs_f64();
    writeln!(output, "end {number} {} {taken}", longest.as_micros())?;
    Ok(Report::default())
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let archive = directory.path().join("busybox.tar");
    pack_busybox(&archive);
    let mut report = Report::default();
    let mut engine = brig_with_image("logs", &archive)?;
    let socket = engine.path("brig.sock");
    begin(&socket, options)?;
    std::thread::sleep(Duration::from_secs(u64::from(options.seconds)) / 3);
    engine.crash();
    std::thread::sleep(Duration::from_secs(u64::from(options.seconds)) / 3);
    engine.restart();
    let mut all = vec![("brig, killed midway", finish(&socket, options)?)];
    if !options.alone {
        let docker = report.present("docker", of_docker(&archive, options));
        all.extend(docker.map(|tallies| ("docker, not killed", tallies)));
    }
    let lines = u64::from(options.rate) * u64::from(options.seconds);
    report.notes.push(format!("each container wrote {lines} lines"));
    let figures: [Aspect; 4] = [
        ("lines lost, by container", "lines", |tally| exact(tally.lost)),
        ("lines doubled, by container", "lines", |tally| exact(tally.doubled)),
        ("longest write, by container", "ms", |tally| tally.longest_ms),
        ("time to write all, by container", "s", |tally| tally.seconds),
    ];
    for (title, unit, value) in figures {
        let series = all.iter().map(|(name, tallies)| Series {
            name: (*name).into(),
            values: tallies.iter().map(value).collect(),
        });
        report.figures.push(Figure { title: title.into(), unit, series: series.collect() });
    }
    Ok(report)
}

fn of_docker(archive: &Path, options: &Options) -> Result<Vec<Tally>> {
    let docker = Docker::with_image(archive)?;
    begin(&docker.socket(), options)?;
    finish(&docker.socket(), options)
}

fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = api::call(socket, method, &format!("/v1.41{path}"), &body)?;
    ensure!(answer.is_success(), "{method} {path}: {answer:?}");
    Ok(answer.json())
}

fn begin(socket: &Path, options: &Options) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let mut binds = vec![format!("{}:/writer:ro", program.display())];
    for directory in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(directory).exists() {
            binds.push(format!("{directory}:{directory}:ro"));
        }
    }
    let words = ["/writer", "write-lines", &options.rate.to_string(), &options.seconds.to_string()];
    // Room for everything: what is lost is then not lost to rotation.
    let log = json!({ "Type": "json-file", "Config": { "max-size": "10m", "max-file": "50" } });
    let host = json!({ "Binds": binds, "LogConfig": log, "NetworkMode": "none" });
    let body = json!({ "Image": "busybox", "Cmd": words, "HostConfig": host });
    for number in 0..options.containers {
        call(socket, "POST", &format!("/containers/create?name=writer-{number}"), &body)?;
    }
    for number in 0..options.containers {
        call(socket, "POST", &format!("/containers/writer-{number}/start"), &Value::Null)?;
    }
    Ok(())
}

/// Waits for the writers, reads their logs, removes them.
fn finish(socket: &Path, options: &Options) -> Result<Vec<Tally>> {
    let lines = u64::from(options.rate / BURSTS_PER_SECOND * BURSTS_PER_SECOND)
        * u64::from(options.seconds);
    let mut tallies = Vec::new();
    for number in 0..options.containers {
        let name = format!("/containers/writer-{number}");
        call(socket, "POST", &format!("{name}/wait"), &Value::Null)?;
        let inspected = call(socket, "GET", &format!("{name}/json"), &Value::Null)?;
        let path = inspected["LogPath"].as_str().context("a log path")?.to_owned();
        let tally = read_log(Path::new(&path), lines);
        tallies
            .push(tally.with_context(|| format!("read the log of writer {number}: {inspected}"))?);
        call(socket, "DELETE", &format!("{name}?force=1"), &Value::Null)?;
    }
    Ok(tallies)
}

/// Reads a log and what was rotated from it, oldest first.
fn read_log(path: &Path, lines: u64) -> Result<Tally> {
    let rotated = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let mut files: Vec<PathBuf> = (1..).map(rotated).take_while(|file| file.exists()).collect();
    files.reverse();
    files.push(path.to_owned());
    let (mut tally, mut expected) = (Tally::default(), 0_u64);
    let mut ended = false;
    for file in files {
        let reader = BufReader::new(File::open(&file).context("open a log")?);
        for line in reader.lines() {
            let entry: Value = serde_json::from_str(&line?).context("parse a log line")?;
            let text = entry["log"].as_str().unwrap_or_default();
            let mut words = text.split_ascii_whitespace();
            match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
                (Some("line"), Some(number)) if number < expected => tally.doubled += 1,
                (Some("line"), Some(number)) => {
                    tally.lost += number - expected;
                    expected = number + 1;
                }
                (Some("end"), Some(_)) => {
                    ended = true;
                    let mut next = || words.next().and_then(|word| word.parse::<f64>().ok());
                    tally.longest_ms = next().unwrap_or(f64::NAN) / 1000.0;
                    tally.seconds = next().unwrap_or(f64::NAN);
                }
                _ => bail!("an odd line: {text:?}"),
            }
        }
    }
    tally.lost += lines - expected.min(lines) + u64::from(!ended);
    Ok(tally)
}

fn exact(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
