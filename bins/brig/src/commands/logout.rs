//! `brig logout`.

use crate::context::Context;
use crate::credentials::Credentials;
use crate::exit::{Exit, Outcome};

/// Forget the credentials for a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The registry
    #[arg(default_value = "docker.io")]
    registry: String,
}

#[expect(clippy::unused_async, reason = "every command's execute has one form")]
pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let registry = &arguments.registry;
    if Credentials::load(&context.config_directory())?.remove(registry)? {
        println!("Removed the credentials for {registry}");
    } else {
        println!("Not logged in to {registry}");
    }
    Ok(Exit::SUCCESS)
}
