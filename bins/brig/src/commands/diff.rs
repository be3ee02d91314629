//! `brig diff`.

use brig_engine_api::models::ChangeType;

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// List what a container changed in its file system
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The container
    container: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    for change in context.client().await?.container_changes(&arguments.container).await? {
        let kind = match change.kind {
            ChangeType::_0 => 'C',
            ChangeType::_1 => 'A',
            _ => 'D',
        };
        println!("{kind} {}", change.path);
    }
    Ok(Exit::SUCCESS)
}
