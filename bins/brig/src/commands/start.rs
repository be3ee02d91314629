//! `brig start`.

use anyhow::bail;
use brig_engine_api::client::{Client, ErrorKind};
use brig_engine_api::query;

use super::session::{self, DETACH_KEYS, Ended, Session, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome, for_each};
use crate::terminal::{self, DetachKeys};

/// Start stopped containers
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Attach to its output and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Send standard input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    if arguments.attach || arguments.interactive {
        return attached(&client, &arguments).await;
    }
    for_each(&arguments.containers, async |container| {
        match client.start_container(container, &query::StartContainer::default()).await {
            // Running already is as good as started.
            Err(error) if error.kind() != ErrorKind::NotModified => Err(error.into()),
            _ => Ok(container.to_owned()),
        }
    })
    .await
}

async fn attached(client: &Client, arguments: &Arguments) -> Outcome {
    let container = single(&arguments.containers)?;
    let inspected = client.inspect_container(container, false).await?.body;
    let config = inspected.config.unwrap_or_default();
    let (tty, id) = (config.tty.unwrap_or_default(), inspected.id.unwrap_or_default());
    let stdin = arguments.interactive && config.open_stdin.unwrap_or_default();
    if tty && stdin {
        terminal::require()?;
    }
    let query = query::AttachContainer {
        stream: true,
        stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: Some(arguments.detach_keys.clone()),
    };
    let hijacked = client.attach_container(&id, &query, tty).await?;
    let wait = query::WaitContainer { condition: Some("next-exit".to_owned()) };
    let waiting = client.wait_container(&id, &wait).await?;
    match client.start_container(&id, &query::StartContainer::default()).await {
        Err(error) if error.kind() != ErrorKind::NotModified => {
            return Err(Failure::of_start(error));
        }
        _ => {}
    }
    let session = Session {
        client,
        target: Target::Container(id),
        stdin,
        tty,
        proxy_signals: true,
        detach_keys: DetachKeys::parse(if tty { &arguments.detach_keys } else { "" })?,
    };
    if session.run(hijacked).await? == Ended::Detached {
        return Ok(Exit::SUCCESS);
    }
    session::flush();
    Ok(Exit::of_container(waiting.exited().await?.status_code))
}

fn single(containers: &[String]) -> anyhow::Result<&str> {
    match containers {
        [container] => Ok(container),
        _ => bail!("only one container can be attached to"),
    }
}
