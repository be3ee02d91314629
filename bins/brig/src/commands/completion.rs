//! `brig completion`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::arguments::Cli;
use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[expect(clippy::unused_async, reason = "every command's execute has one form")]
pub(crate) async fn execute(_context: &Context, arguments: Arguments) -> Outcome {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "brig", &mut std::io::stdout());
    Ok(Exit::SUCCESS)
}
