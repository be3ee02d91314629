//! `brig generate-man`: man pages, for packagers.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::arguments::Cli;
use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Write a man page for every command
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the pages go
    directory: PathBuf,
}

#[expect(clippy::unused_async, reason = "every command's execute has one form")]
pub(crate) async fn execute(_context: &Context, arguments: Arguments) -> Outcome {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("write man pages to {}", directory.display()))?;
    Ok(Exit::SUCCESS)
}
