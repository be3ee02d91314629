//! `brig logs`.

use brig_engine_api::query;

use super::session::write_output;
use crate::arguments::time::moment;
use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Go on as the container writes
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Put a timestamp before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Nothing older: a time, or a duration such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<query::UnixTime>,
    /// Nothing newer
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<query::UnixTime>,
    /// Show labels given by log options, too
    #[arg(long)]
    details: bool,
    /// The container
    container: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let inspected = client.inspect_container(&arguments.container, false).await?.body;
    let tty = inspected.config.and_then(|config| config.tty).unwrap_or_default();
    let query = query::ContainerLogs {
        follow: arguments.follow,
        stdout: true,
        stderr: true,
        since: arguments.since,
        until: arguments.until,
        timestamps: arguments.timestamps,
        tail: Some(arguments.tail),
        details: arguments.details,
    };
    write_output(client.container_logs(&arguments.container, &query, tty).await?).await?;
    Ok(Exit::SUCCESS)
}
