//! `brig attach`.

use anyhow::bail;
use brig_engine_api::client::ErrorKind;
use brig_engine_api::query;

use super::session::{self, DETACH_KEYS, Ended, Session, Target};
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::terminal::DetachKeys;

/// Attach to a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not send standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// The container
    container: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let inspected = client.inspect_container(&arguments.container, false).await?.body;
    running(inspected.state.as_ref().and_then(|state| state.running))?;
    let id = inspected.id.unwrap_or_default();
    let config = inspected.config.unwrap_or_default();
    let tty = config.tty.unwrap_or_default();
    let stdin = config.open_stdin.unwrap_or_default() && !arguments.no_stdin;
    let query = query::AttachContainer {
        stream: true,
        stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: Some(arguments.detach_keys.clone()),
    };
    let wait = client.wait_container(&id, &query::WaitContainer::default()).await?;
    let hijacked = client.attach_container(&id, &query, tty).await?;
    let session = Session {
        client: &client,
        target: Target::Container(id),
        stdin,
        tty,
        proxy_signals: arguments.sig_proxy,
        detach_keys: DetachKeys::parse(if tty { &arguments.detach_keys } else { "" })?,
    };
    if session.run(hijacked).await? == Ended::Detached {
        return Ok(Exit::SUCCESS);
    }
    session::flush();
    match wait.exited().await {
        Ok(exited) => Ok(Exit::of_container(exited.status_code)),
        // It removed itself and took its exit code along.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Exit::SUCCESS),
        Err(error) => Err(anyhow::Error::new(error).context("wait for the container").into()),
    }
}

fn running(running: Option<bool>) -> anyhow::Result<()> {
    if !running.unwrap_or_default() {
        bail!("cannot attach to a stopped container: start it first");
    }
    Ok(())
}
