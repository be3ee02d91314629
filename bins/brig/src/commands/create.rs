//! `brig create`.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use brig_engine_api::client::{Client, ErrorKind};
use brig_engine_api::models::ContainerCreateResponse;

use super::pull;
use crate::arguments::container::{ContainerOptions, Pull};
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};

/// Create a container without starting it
// -h is docker's short form of --hostname here.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: ContainerOptions,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    // Wrong flags are docker's 125; what the daemon refuses is an ordinary failure, unlike for `run`.
    arguments.options.body(true).map_err(|error| Failure::with_code(125, error))?;
    let client = context.client().await?;
    let created = create(context, &client, &arguments.options, true).await?;
    println!("{}", created.id);
    Ok(Exit::SUCCESS)
}

/// Creates the container, pulling its image when that is wanted.
pub(crate) async fn create(
    context: &Context,
    client: &Client,
    options: &ContainerOptions,
    attached: bool,
) -> Result<ContainerCreateResponse> {
    let body = options.restarting(attached)?;
    let query = options.query();
    let id_file = options.cidfile.as_deref().map(reserve_id_file).transpose()?;
    if options.pull == Pull::Always {
        pull_image(context, client, options).await?;
    }
    let created = match client.create_container(&query, &body).await {
        Err(error) if error.kind() == ErrorKind::NotFound && options.pull == Pull::Missing => {
            if !options.quiet {
                eprintln!("Unable to find image '{}' locally", options.image());
            }
            pull_image(context, client, options).await?;
            client.create_container(&query, &body).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(mut file) = id_file {
        file.write_all(created.id.as_bytes()).context("write the container's ID to its file")?;
    }
    Ok(created)
}

async fn pull_image(context: &Context, client: &Client, options: &ContainerOptions) -> Result<()> {
    let image = options.image();
    pull::pull(
        context,
        client,
        image,
        options.platform.as_deref(),
        pull::View::for_run(options.quiet),
    )
    .await
}

/// The file must be new, so that no other container's ID is lost.
fn reserve_id_file(path: &std::path::Path) -> Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("create {} for the container's ID", path.display()))
}
