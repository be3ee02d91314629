//! `brig export`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brig_engine_api::client::ByteStream;
use tokio::io::AsyncWriteExt as _;

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Export a container's file system as a tar archive
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Archive to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    container: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    write_stream(arguments.output.as_deref(), async || {
        client.export_container(&arguments.container).await
    })
    .await?;
    Ok(Exit::SUCCESS)
}

/// Writes an archive to a file, which appears only when it is complete, or to standard output.
pub(crate) async fn write_stream(
    output: Option<&Path>,
    open: impl AsyncFnOnce() -> brig_engine_api::client::Result<ByteStream>,
) -> Result<()> {
    let Some(path) = output else {
        if std::io::stdout().is_terminal() {
            bail!("standard output is a terminal: give a file with -o or redirect it");
        }
        let mut stream = open().await?;
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut stream, &mut stdout).await.context("write the archive")?;
        return stdout.flush().await.context("write the archive");
    };
    let mut stream = open().await?;
    let unfinished = path.with_extension("unfinished");
    let result = async {
        let mut file = tokio::fs::File::create(&unfinished).await?;
        tokio::io::copy(&mut stream, &mut file).await?;
        file.flush().await?;
        tokio::fs::rename(&unfinished, path).await
    };
    if let Err(error) = result.await {
        let _ = tokio::fs::remove_file(&unfinished).await;
        return Err(error).with_context(|| format!("write {}", path.display()));
    }
    Ok(())
}
