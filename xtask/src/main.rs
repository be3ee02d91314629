//! Project tasks, one file each: `cargo xtask help` lists them.
//!
//! The README's two commands live here (`demo` and `test`), and everything CI does. A task installs what it needs from
//! Debian's packages or with cargo, says what it is doing, and leaves the machine as it was.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task runner speaks to its user")]

mod bench;
mod binaries;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod image;
mod layers;
mod leaks;
mod packages;
mod process;
mod registry;
mod tests;
mod vm;

use std::path::PathBuf;
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
    Demo,
    /// Install what the tests need and run all of them: unit, integration as root, and the VM matrix
    Test(tests::Options),
    /// What CI runs: format, clippy, layers, docs, cargo-deny, all tests, fuzz corpus replay
    Ci(ci::Options),
    /// Check that no crate imports what the architecture forbids
    Layers,
    /// Build the release programs into an installable tree
    Dist {
        /// Where the tree goes
        #[arg(default_value = "target/dist")]
        directory: PathBuf,
    },
    /// Build and install the programs, units, completions and man pages
    Install {
        /// Installation prefix
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
    },
    /// Boot the test VM and run a command in it
    Vm(vm::Options),
    /// Measure Brig beside its peers
    Bench(bench::Options),
    /// Replay the fuzz corpus on stable, or run the fuzzers (needs a nightly toolchain)
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo => demo::run(),
        Task::Test(options) => tests::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::Layers => layers::check(),
        Task::Dist { directory } => dist::build(&directory),
        Task::Install { prefix } => dist::install(&prefix),
        Task::Vm(options) => vm::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
