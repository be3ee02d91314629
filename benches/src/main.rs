//! Whole-process benchmarks: what an operator waits for, measured beside the peers in the same run.
//!
//! `cargo xtask bench NAME` builds release programs, installs the peers, and starts this program in a network and mount
//! namespace of its own (loopback only), so that no peer meets the machine's own engines. Every benchmark interleaves its
//! contestants round by round: on a shared machine only ratios between neighbours in time mean anything.
//!
//! One file is one benchmark; what they share is [`sample`] (measuring, summing up, printing) and [`peers`] (the engines).
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to its user")]

mod density;
mod images;
mod logs;
mod peers;
mod runtime;
mod sample;
mod start;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Benchmarks of Brig beside its peers",
    disable_version_flag = true
)]
struct Arguments {
    /// How the results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// `run --rm IMAGE true`, with the default network and with none, by brig, docker and podman
    Start(start::Options),
    /// `run`, create to delete, `exec`, many containers and little memory, by brig-runtime, runc, crun, youki and a C program
    Runtime(runtime::Options),
    /// Memory and threads of shims and daemons, and a thousand containers started, listed, adopted and removed
    Density(density::Options),
    /// Pull, removal, load and push of three images, by brig (as directories and as EROFS images), docker and podman
    Images(images::Options),
    /// Ten containers that log ten thousand lines a second each, with rotation, while brigd is killed
    Logs(logs::Options),
    /// Writes numbered lines: what a container of `logs` runs
    #[command(hide = true)]
    WriteLines(logs::WriteOptions),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.benchmark {
        Benchmark::Start(options) => start::run(options),
        Benchmark::Runtime(options) => runtime::run(options),
        Benchmark::Density(options) => density::run(options),
        Benchmark::Images(options) => images::run(options),
        Benchmark::Logs(options) => logs::run(options),
        Benchmark::WriteLines(options) => logs::write_lines(options),
    };
    match result {
        Ok(report) => {
            report.print(arguments.format);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
