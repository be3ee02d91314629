//! `brig kill`.

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    for_each(&arguments.containers, async |container| {
        client.kill_container(container, arguments.signal.as_deref()).await?;
        Ok(container.to_owned())
    })
    .await
}
