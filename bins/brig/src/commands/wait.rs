//! `brig wait`.

use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Wait until containers stop and print their exit codes
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    for_each(&arguments.containers, async |container| {
        let waiting = client.wait_container(container, &query::WaitContainer::default()).await?;
        Ok(waiting.exited().await?.status_code.to_string())
    })
    .await
}
