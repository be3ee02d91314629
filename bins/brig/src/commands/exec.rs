//! `brig exec`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use brig_engine_api::models::{ExecConfig, ExecStartConfig};

use super::session::{self, DETACH_KEYS, Ended, Session, Target};
use crate::arguments::container::refuse_unknown_flag;
use crate::arguments::environment;
use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::terminal::{self, DetachKeys};

/// Run a command in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// The container, the command and its arguments
    #[arg(required = true, value_names = ["CONTAINER", "COMMAND"], num_args = 2.., trailing_var_arg = true, allow_hyphen_values = true)]
    container_and_command: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let Some((container, command)) = arguments.container_and_command.split_first() else {
        return Err(anyhow::anyhow!("a container and a command are needed").into());
    };
    refuse_unknown_flag(container)?;
    if arguments.tty && arguments.interactive && !arguments.detach {
        terminal::require()?;
    }
    let keys = DetachKeys::parse(if arguments.tty { &arguments.detach_keys } else { "" })?;
    let client = context.client().await?;
    let config = ExecConfig {
        attach_stdin: Some(arguments.interactive && !arguments.detach),
        attach_stdout: Some(!arguments.detach),
        attach_stderr: Some(!arguments.detach),
        console_size: console_size(arguments.tty),
        detach_keys: Some(arguments.detach_keys.clone()),
        tty: Some(arguments.tty),
        env: Some(environment::variables(&arguments.env_file, &arguments.env)?),
        cmd: Some(command.to_vec()),
        privileged: Some(arguments.privileged),
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
    };
    let id = client.create_exec(container, &config).await?;
    let start = ExecStartConfig {
        detach: None,
        tty: Some(arguments.tty),
        console_size: console_size(arguments.tty),
    };
    if arguments.detach {
        client.start_exec_detached(&id, &start).await.map_err(Failure::of_start)?;
        return Ok(Exit::SUCCESS);
    }
    let hijacked = client.start_exec(&id, &start).await.map_err(Failure::of_start)?;
    let session = Session {
        client: &client,
        target: Target::Exec(id.clone()),
        stdin: arguments.interactive,
        tty: arguments.tty,
        proxy_signals: false,
        detach_keys: keys,
    };
    if session.run(hijacked).await? == Ended::Detached {
        return Ok(Exit::SUCCESS);
    }
    session::flush();
    let ended = client.inspect_exec(&id).await.context("read the command's exit code")?;
    match ended.exit_code {
        Some(code) => Ok(Exit::of_container(code)),
        None => exit_unknown(),
    }
}

fn exit_unknown() -> Outcome {
    let unknown =
        || -> anyhow::Result<Exit> { bail!("the command closed its output but has not exited") };
    Ok(unknown()?)
}

fn console_size(tty: bool) -> Option<Vec<usize>> {
    let (height, width) = terminal::size().filter(|_| tty)?;
    Some(vec![height.into(), width.into()])
}
