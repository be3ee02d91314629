//! `brig stop`.

use brig_engine_api::client::ErrorKind;
use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Stop containers: their stop signal, then SIGKILL
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Signal instead of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds until SIGKILL; -1 waits for ever
    #[arg(
        short = 't',
        long,
        visible_alias = "time",
        value_name = "SECONDS",
        allow_hyphen_values = true
    )]
    timeout: Option<i64>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let query =
        query::StopContainer { signal: arguments.signal.clone(), timeout: arguments.timeout };
    for_each(&arguments.containers, async |container| {
        match client.stop_container(container, &query).await {
            // Stopped already is as good as stopped.
            Err(error) if error.kind() != ErrorKind::NotModified => Err(error.into()),
            _ => Ok(container.to_owned()),
        }
    })
    .await
}
