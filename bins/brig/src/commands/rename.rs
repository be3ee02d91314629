//! `brig rename`.

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Rename a container
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The container
    container: String,
    /// Its new name
    new_name: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    context.client().await?.rename_container(&arguments.container, &arguments.new_name).await?;
    Ok(Exit::SUCCESS)
}
