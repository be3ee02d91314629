//! `brig login`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use brig_engine_api::models::AuthConfig;
use rustix::termios::{self, LocalModes, OptionalActions};

use crate::context::Context;
use crate::credentials::Credentials;
use crate::exit::{Exit, Outcome};

/// Store credentials for a registry, once the registry accepts them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others on this machine may see it: prefer --password-stdin
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// The registry
    #[arg(default_value = "docker.io")]
    registry: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let username = match &arguments.username {
        Some(name) => name.clone(),
        None if arguments.password_stdin => {
            return Err(anyhow::anyhow!("--password-stdin needs --username").into());
        }
        None => prompt("Username: ", false)?,
    };
    let password = match &arguments.password {
        Some(password) => password.clone(),
        None if arguments.password_stdin => read_password()?,
        None => prompt("Password: ", true)?,
    };
    let client = context.client().await?;
    let auth = AuthConfig {
        username: Some(username.clone()),
        password: Some(password.clone()),
        serveraddress: Some(arguments.registry.clone()),
    };
    let answer = client.check_auth(&auth).await?;
    Credentials::load(&context.config_directory())?.store(
        &arguments.registry,
        &username,
        &password,
    )?;
    println!("{}", if answer.status.is_empty() { "Login Succeeded" } else { &answer.status });
    Ok(Exit::SUCCESS)
}

fn read_password() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().take(64 * 1024).read_to_string(&mut text).context("read the password")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal; a secret is not echoed.
fn prompt(question: &str, secret: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!(
            "cannot ask for credentials without a terminal: give --username and --password-stdin"
        );
    }
    print!("{question}");
    std::io::stdout().flush().context("write the question")?;
    let before = termios::tcgetattr(&stdin).context("read the terminal's settings")?;
    if secret {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &quiet).context("turn echo off")?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if secret {
        println!();
        termios::tcsetattr(&stdin, OptionalActions::Flush, &before).context("turn echo on")?;
    }
    read.context("read the answer")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
