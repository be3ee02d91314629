//! `brig load`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brig_engine_api::client::Upload;
use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::progress::{self, Show};
use crate::{layout, pipe};

/// Load images from an archive or the directory of an OCI layout
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Archive, or directory of an OCI layout, to read instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let (upload, packer) = match arguments.input {
        Some(directory) if directory.is_dir() => {
            layout::check(&directory)?;
            let (upload, packer) = pipe::write(move |writer| layout::pack(&directory, writer));
            (upload, Some(packer))
        }
        input => (archive_upload(input.as_deref(), "with -i or ").await?, None),
    };
    let query = query::LoadImages { quiet: arguments.quiet, platform: None };
    let stream = context.client().await?.load_images(&query, upload).await?;
    let show = if arguments.quiet { Show::Nothing } else { Show::Progress };
    let followed = progress::follow(stream, show).await;
    if let Some(packer) = packer {
        let packed = packer.await.context("pack the layout")?;
        // A refusal of the engine ends the packing, and says more than that.
        if followed.is_ok() {
            packed?;
        }
    }
    let messages = followed?;
    if arguments.quiet {
        messages.into_iter().filter_map(|message| message.stream).for_each(|line| print!("{line}"));
    }
    Ok(Exit::SUCCESS)
}

/// An archive from a file, or from standard input; `how` else than by redirection it can be given.
pub(crate) async fn archive_upload(input: Option<&Path>, how: &str) -> Result<Upload> {
    match input {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            Ok(Upload::from_reader(file.with_context(|| format!("open {}", path.display()))?))
        }
        None if std::io::stdin().is_terminal() => {
            bail!("standard input is a terminal: give the archive {how}by redirection")
        }
        None => Ok(Upload::from_reader(tokio::io::stdin())),
    }
}
