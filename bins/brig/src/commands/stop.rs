//! `brig stop`.

use brig_engine_api::client::ErrorKind;
use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// How a container is to be stopped, and which: what `stop` and `restart` take.
#[derive(Debug, clap::Args)]
pub(super) struct StopOptions {
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
    pub(super) containers: Vec<String>,
}

impl StopOptions {
    /// The query of both calls.
    pub(super) fn query(&self) -> query::StopContainer {
        query::StopContainer { signal: self.signal.clone(), timeout: self.timeout }
    }
}

/// Stop containers: their stop signal, then SIGKILL
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: StopOptions,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let query = arguments.options.query();
    for_each(&arguments.options.containers, async |container| {
        match client.stop_container(container, &query).await {
            // Stopped already is as good as stopped.
            Err(error) if error.kind() != ErrorKind::NotModified => Err(error.into()),
            _ => Ok(container.to_owned()),
        }
    })
    .await
}
