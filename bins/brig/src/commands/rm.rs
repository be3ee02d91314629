//! `brig rm`.

use brig_engine_api::client::ErrorKind;
use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Remove containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kill and remove running containers, too
    #[arg(short, long)]
    force: bool,
    /// Remove the containers' anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let query =
        query::RemoveContainer { volumes: arguments.volumes, force: arguments.force, link: false };
    for_each(&arguments.containers, async |container| {
        match client.remove_container(container, &query).await {
            // As docker: forcing away what is not there is no failure.
            Err(error) if arguments.force && error.kind() == ErrorKind::NotFound => {
                Ok(String::new())
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(container.to_owned()),
        }
    })
    .await
}
