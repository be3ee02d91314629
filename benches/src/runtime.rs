//! What a container costs an engine that calls an OCI runtime, beside other runtimes and beside the floor: a C program
//! (`floor/floor.c`) that asks the kernel for the same container in straight lines.
//!
//! Whole processes are measured, from fork to wait. Everything is measured twice: on the cgroups of this host, and where
//! those are v1 or hybrid once more in a mount namespace in which cgroup2 alone is mounted. State and root filesystem lie
//! on a tmpfs, as they do where `/run` is one.

mod bundle;
mod contender;
mod hierarchies;
mod memory;
mod workplace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::bundle::Bundle;
use self::contender::{Contender, Running};
use self::hierarchies::Hierarchies;
use self::workplace::Workplace;
use crate::sample::{
    Contestant, Figure, Report, Series, in_milliseconds, interleave, milliseconds, side_by_side,
};

/// Containers that run side by side.
const AT_ONCE: usize = 8;
/// The floor's source, compiled by the benchmark.
const FLOOR: &str = include_str!("../floor/floor.c");

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds that are counted, of one container each
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Rounds that are counted, of `--containers` each
    #[arg(long, default_value_t = 3)]
    batches: usize,
    /// Containers of a batch, one after the other and eight at a time
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// Measure youki too, which `cargo xtask bench` builds then, for minutes
    #[arg(long)]
    youki: bool,
    /// Measure this OCI runtime too
    #[arg(long, value_name = "PROGRAM")]
    also: Vec<PathBuf>,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let workplace = Workplace::make()?;
    // Whoever starts a created container is not its parent; this process is, once its creator has ended.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the reaper of containers")?;
    let brig = brig_program()?;
    let floor = compile_floor(workplace.path())?;
    let mut candidates = vec![
        ("brig".to_owned(), brig.clone()),
        ("runc".to_owned(), "runc".into()),
        ("crun".to_owned(), "crun".into()),
    ];
    candidates.extend(options.youki.then(|| ("youki".to_owned(), youki_program())));
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    candidates.extend(options.also.iter().map(|path| (name(path), path.clone())));
    let mut report = Report::default();
    if !options.youki {
        let note = "youki was left out: --youki builds it, for minutes, and measures it";
        report.notes.push(note.to_owned());
    }
    let directory = workplace.path();
    let mut measurement = Measurement { options, directory, report, brig, floor };
    measurement.programs(&candidates)?;
    let mode = measurement.hierarchies(&candidates)?;
    if mode != "v2" {
        workplace.mount_unified_alone()?;
        measurement.hierarchies(&candidates)?;
    }
    Ok(measurement.report)
}

struct Measurement<'a> {
    options: &'a Options,
    directory: &'a Path,
    report: Report,
    brig: PathBuf,
    floor: PathBuf,
}

impl Measurement<'_> {
    /// Sizes and the price of starting a program that does nothing yet.
    fn programs(&mut self, candidates: &[(String, PathBuf)]) -> Result<()> {
        let mut sizes = Vec::new();
        let mut contestants: Vec<Contestant<'_>> = Vec::new();
        for (name, program) in candidates {
            let Some((path, version)) = self.report.present(name, identify(program)) else {
                continue;
            };
            self.report.notes.push(format!("{name} is {version}"));
            let bytes = fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
            sizes.push(Series { name: name.clone(), values: vec![mebibytes(bytes)] });
            let once = move || milliseconds(Command::new(&path).arg("--version"));
            contestants.push((name.clone(), Box::new(once)));
        }
        let title = "size of the program".to_owned();
        self.report.figures.push(Figure { title, unit: "MiB", series: sizes });
        let series = interleave(self.options.rounds, contestants)?;
        let title = "RUNTIME --version".to_owned();
        self.report.figures.push(Figure { title, unit: "ms", series });
        Ok(())
    }

    /// Everything that depends on cgroups, on those that are mounted now. Answers which these are.
    fn hierarchies(&mut self, candidates: &[(String, PathBuf)]) -> Result<&'static str> {
        let hierarchies = Hierarchies::detect()?;
        let mode = hierarchies.mode();
        self.report.notes.push(hierarchies.describe());
        let directory = self.directory.join(mode);
        let bundle = Bundle::make(&directory, &self.brig)?;
        let floor = Contender::floor(&self.floor, hierarchies.clone());
        let mut contenders = Vec::new();
        for (name, program) in candidates {
            if identify(program).is_err() {
                // Noted when its size was asked for.
                continue;
            }
            let contender = Contender::runtime(name, program, &directory.join(name));
            let probed = contender.probe(&bundle);
            let name = format!("{name}, {mode} cgroups,");
            contenders.extend(self.report.present(&name, probed.map(|()| contender)));
        }
        ensure!(contenders.first().is_some_and(|it| it.name == "brig"), "brig cannot run here");
        floor.probe(&bundle)?;
        contenders.insert(1, floor);
        self.single(mode, &bundle, &contenders)?;
        self.many(mode, &bundle, &contenders)?;
        if hierarchies.limit_memory() {
            let title = format!("smallest memory limit with which `true` starts, {mode}");
            let measure = |contender: &Contender| {
                let name = contender.name.clone();
                Ok(Series { name, values: vec![memory::smallest_limit(contender, &bundle)?] })
            };
            let series = contenders.iter().map(measure).collect::<Result<_>>()?;
            self.report.figures.push(Figure { title, unit: "KiB", series });
        } else {
            let note = "no memory limits were measured there: no memory controller is mounted";
            self.report.notes.push(format!("{mode}: {note}"));
        }
        Ok(mode)
    }

    /// Figures of one container at a time.
    fn single(&mut self, mode: &str, bundle: &Bundle, contenders: &[Contender]) -> Result<()> {
        let rounds = self.options.rounds;
        let mut figure = |what: &str, contestants| -> Result<()> {
            let series = interleave(rounds, contestants)?;
            let title = format!("{what}, {mode}");
            self.report.figures.push(Figure { title, unit: "ms", series });
            Ok(())
        };
        let run = |it: &'_ Contender| milliseconds(&mut it.run(bundle, &it.new_id()));
        figure("run true", contestants(contenders, run))?;
        let lifecycle = |it: &'_ Contender| it.lifecycle(bundle);
        let runtimes = contenders.iter().filter(|contender| !contender.is_floor());
        figure("create, start and delete of true", contestants(runtimes, lifecycle))?;
        let sleeping =
            contenders.iter().map(|it| it.sleep(bundle)).collect::<Result<Vec<Running<'_>>>>()?;
        let exec = sleeping.iter().map(|running| -> Contestant<'_> {
            let once = || milliseconds(&mut running.exec(&["/bin/true"]));
            (running.name().to_owned(), Box::new(once))
        });
        figure("exec true", exec.collect())
    }

    /// Figures of many containers.
    fn many(&mut self, mode: &str, bundle: &Bundle, contenders: &[Contender]) -> Result<()> {
        let count = self.options.containers;
        for (at_once, how) in
            [(1, "one after the other".to_owned()), (AT_ONCE, format!("{AT_ONCE} at a time"))]
        {
            let batch = |contender: &'_ Contender| {
                let start = Instant::now();
                side_by_side(0..count, at_once, |_| {
                    milliseconds(&mut contender.run(bundle, &contender.new_id())).map(drop)
                })?;
                Ok(in_milliseconds(start.elapsed()))
            };
            let series = interleave(self.options.batches, contestants(contenders, batch))?;
            let title = format!("{count} times run true, {how}, {mode}");
            self.report.figures.push(Figure { title, unit: "ms", series });
        }
        Ok(())
    }
}

fn contestants<'a>(
    contenders: impl IntoIterator<Item = &'a Contender>,
    once: impl Fn(&'a Contender) -> Result<f64> + Copy + 'a,
) -> Vec<Contestant<'a>> {
    let contestant = |contender: &'a Contender| -> Contestant<'a> {
        (contender.name.clone(), Box::new(move || once(contender)))
    };
    contenders.into_iter().map(contestant).collect()
}

/// Where a program is, and what it says of itself.
fn identify(program: &Path) -> Result<(PathBuf, String)> {
    let path = match program.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|directory| directory.join(program))
            .find(|path| path.is_file())
            .with_context(|| format!("{} is not installed", program.display()))?,
        _ => program.to_owned(),
    };
    let output = Command::new(&path).arg("--version").output();
    let output = output.with_context(|| format!("start {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok((path, text.lines().next().unwrap_or_default().to_owned()))
}

fn brig_program() -> Result<PathBuf> {
    let programs = std::env::var_os("BRIG_TEST_PROGRAMS");
    let programs = programs.context("BRIG_TEST_PROGRAMS is not set; use cargo xtask bench")?;
    Ok(Path::new(&programs).join("brig-runtime"))
}

/// Where `cargo xtask bench` puts it.
fn youki_program() -> PathBuf {
    let peers = std::env::var_os("BRIG_BENCH_PEERS").unwrap_or_default();
    Path::new(&peers).join("bin/youki")
}

fn compile_floor(directory: &Path) -> Result<PathBuf> {
    let (source, program) = (directory.join("floor.c"), directory.join("floor"));
    fs::write(&source, FLOOR).context("write the floor's source")?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-static", "-Wall", "-o"]).arg(&program).arg(&source);
    crate::peers::quiet(&mut compiler).context("compile the floor (gcc, libc6-dev)")?;
    Ok(program)
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}
