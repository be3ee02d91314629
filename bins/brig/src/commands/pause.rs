//! `brig pause`.

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Freeze all processes of containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    for_each(&arguments.containers, async |container| {
        client.pause_container(container).await?;
        Ok(container.to_owned())
    })
    .await
}
