//! Project tasks, one file each: `cargo xtask help` lists them.
//!
//! The README's two commands live here (`demo` and `test`), and everything CI does. A task installs what it needs from
//! Debian's packages or with cargo, says what it is doing, and leaves the machine as it was.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task runner speaks to its user")]

mod bench;
mod binaries;
mod ci;
mod criu;
mod demo;
mod dist;
mod image;
mod install;
mod layers;
mod leaks;
mod packages;
mod process;
mod registry;
mod soak;
mod tests;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Brig project", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show Brig at work: a real nginx image, pushed, pulled, run, published, inspected and removed
    Demo(demo::Options),
    /// Install what the tests need and run all of them: unit and privileged tests, as root on this machine
    Test(tests::Options),
    /// What CI runs: format, layers, clippy, docs, cargo-deny, all tests
    Ci(ci::Options),
    /// Measure Brig beside its peers: `bench start` and others, see `bench --help`
    Bench(bench::Options),
    /// Build the programs and make an installable tree: programs, systemd units, completions, manual pages
    Dist(dist::Options),
    /// Build the installable tree and put it in place
    Install(install::Options),
    /// Boot a Debian with systemd in QEMU and run a command there
    Vm(vm::Options),
    /// Run for long what finds more the longer it runs: races, kills, load, random profiles, power cuts
    Soak(soak::Options),
    /// Check that no crate imports what the architecture forbids
    Layers,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => tests::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::Bench(options) => bench::run_benchmark(&options),
        Task::Soak(options) => soak::run_all(&options),
        Task::Layers => layers::check(),
        Task::Dist(options) => dist::run(&options),
        Task::Install(options) => install::run(&options),
        Task::Vm(options) => return report(vm::run(&options)),
    };
    report(result.map(|()| ExitCode::SUCCESS))
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
