//! The Brig command line: a client of the Engine API with docker's commands, flags, output and exit codes.
//!
//! `main` parses, runs one command and turns its outcome into an exit code. [`commands`] holds one file for each command,
//! [`arguments`] the parsers of docker's flag syntax, [`output`] tables, templates and progress, [`terminal`] raw mode,
//! [`context`] the connection, and [`daemon`] starts brigd where none runs.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

mod arguments;
mod commands;
mod context;
mod credentials;
mod daemon;
mod exit;
mod layout;
mod output;
mod pipe;
mod terminal;

use clap::Parser;

use arguments::Cli;
use context::Context;
use exit::{Exit, Failure};

fn main() -> ! {
    let cli = Cli::parse();
    let debug = cli.globals.debug;
    let outcome = run(cli);
    let code = match outcome {
        Ok(exit) => exit.code(),
        Err(failure) => {
            report(&failure, debug);
            failure.code()
        }
    };
    terminal::restore();
    // A read of standard input may still block a thread, which returning would wait for.
    std::process::exit(code.into())
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = Context::new(cli.globals);
    let outcome = runtime.block_on(cli.command.execute(&context));
    // Dropping it would wait for a read of standard input, which only another key would end.
    runtime.shutdown_background();
    outcome
}

/// One line that says what failed and why; `--debug` puts each cause on a line of its own.
fn report(failure: &Failure, debug: bool) {
    let Some(error) = failure.error() else { return };
    if debug {
        eprintln!("brig: {error:?}");
    } else {
        eprintln!("brig: {error:#}");
    }
}
