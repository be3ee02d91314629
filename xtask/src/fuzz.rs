//! Fuzzing: the corpus is replayed by ordinary tests on stable; the fuzzers themselves need a nightly toolchain.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::process::{cargo, command, step, workspace};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only replay the saved corpus, on the stable toolchain
    #[arg(long)]
    replay: bool,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    target: Option<String>,
}

/// Replays the corpus or runs the fuzzers.
pub(crate) fn run_fuzzers(options: &Options) -> Result<()> {
    let directory = workspace().join("fuzz/fuzz_targets");
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let file = entry.context("list fuzz targets")?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if options.target.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        step(&format!("Fuzzing {name}"));
        crate::process::run(command("cargo")
            .args(["+nightly", "fuzz", "run", &name, "--"])
            .arg(format!("-max_total_time={}", options.seconds)))?;
    }
    Ok(())
}

/// The task: replay, or fuzz.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.replay { replay() } else { run_fuzzers(options) }
}

/// Runs the test that feeds every saved input to its target.
pub(crate) fn replay() -> Result<()> {
    crate::process::run(cargo().args(["test", "--locked", "-p", "brig-tests", "--test", "fuzz_corpus"]))
}
