//! `brig run`.
//!
//! Order matters: the wait is in place and the streams are attached before the start, so that neither a short output
//! nor a fast exit can be missed.

use anyhow::Result;
use brig_engine_api::client::{Client, Hijacked, Waiting};
use brig_engine_api::query;

use super::create::create;
use super::session::{self, DETACH_KEYS, Ended, Session, Target};
use crate::arguments::container::{ContainerOptions, StandardStream};
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::terminal::{self, DetachKeys};

/// Create a container from an image and run it
// -h is docker's short form of --hostname here.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    detach: bool,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    #[command(flatten)]
    options: ContainerOptions,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    prepare(&arguments).map_err(|error| Failure::with_code(125, error))?;
    let client = context.client().await.map_err(|error| Failure::with_code(125, error))?;
    let attached = !arguments.detach;
    let created = create(context, &client, &arguments.options, attached).await;
    let id = created.map_err(|error| Failure::with_code(125, error))?.id;
    if arguments.detach {
        start(&client, &id, &arguments).await?;
        println!("{id}");
        return Ok(Exit::SUCCESS);
    }
    foreground(&client, &id, &arguments).await
}

fn prepare(arguments: &Arguments) -> Result<()> {
    if arguments.detach && !arguments.options.attach.is_empty() {
        anyhow::bail!("--attach contradicts --detach");
    }
    if !arguments.detach && arguments.options.tty && arguments.options.interactive {
        terminal::require()?;
    }
    DetachKeys::parse(&arguments.detach_keys)?;
    Ok(())
}

async fn foreground(client: &Client, id: &str, arguments: &Arguments) -> Outcome {
    let options = &arguments.options;
    let hijacked =
        attach(client, id, arguments).await.map_err(|error| Failure::with_code(125, error))?;
    // A container that removes itself has exited when it is gone; any other at its next exit.
    let condition = if options.rm { "removed" } else { "next-exit" };
    let wait = query::WaitContainer { condition: Some(condition.to_owned()) };
    let waiting =
        client.wait_container(id, &wait).await.map_err(|error| Failure::with_code(125, error))?;
    start(client, id, arguments).await?;
    let Some(hijacked) = hijacked else { return exit_code(waiting).await };
    let session = Session {
        client,
        target: Target::Container(id.to_owned()),
        stdin: options.interactive && options.attaches(StandardStream::Stdin, true),
        tty: options.tty,
        proxy_signals: arguments.sig_proxy,
        detach_keys: DetachKeys::parse(if options.tty { &arguments.detach_keys } else { "" })?,
    };
    match session.run(hijacked).await? {
        Ended::Detached => Ok(Exit::SUCCESS),
        Ended::Output => exit_code(waiting).await,
    }
}

/// Attaches to the streams that are wanted; `None` when none is.
async fn attach(client: &Client, id: &str, arguments: &Arguments) -> Result<Option<Hijacked>> {
    let options = &arguments.options;
    let query = query::AttachContainer {
        stream: true,
        stdin: options.interactive && options.attaches(StandardStream::Stdin, true),
        stdout: options.attaches(StandardStream::Stdout, true),
        stderr: options.attaches(StandardStream::Stderr, true),
        detach_keys: Some(arguments.detach_keys.clone()),
        logs: false,
    };
    if !(query.stdin || query.stdout || query.stderr) {
        return Ok(None);
    }
    Ok(Some(client.attach_container(id, &query, options.tty).await?))
}

async fn start(client: &Client, id: &str, arguments: &Arguments) -> Result<(), Failure> {
    let query = query::StartContainer {
        detach_keys: Some(arguments.detach_keys.clone()),
        checkpoint: None,
    };
    client.start_container(id, &query).await.map_err(Failure::of_start)
}

async fn exit_code(waiting: Waiting) -> Outcome {
    let exited = waiting.exited().await.map_err(|error| Failure::with_code(125, error))?;
    session::flush();
    if let Some(message) =
        exited.error.and_then(|error| error.message).filter(|message| !message.is_empty())
    {
        return Err(Failure::of_start(anyhow::anyhow!(message)));
    }
    Ok(Exit::of_container(exited.status_code))
}
