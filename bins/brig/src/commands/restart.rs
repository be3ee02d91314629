//! `brig restart`.

use super::stop::StopOptions;
use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Restart containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: StopOptions,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let query = arguments.options.query();
    for_each(&arguments.options.containers, async |container| {
        client.restart_container(container, &query).await?;
        Ok(container.to_owned())
    })
    .await
}
