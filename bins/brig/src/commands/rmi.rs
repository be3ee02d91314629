//! `brig rmi`.

use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Outcome, for_each};

/// Remove images
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Remove although it has several names or stopped containers use it
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents
    #[arg(long)]
    no_prune: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let query = query::RemoveImage { force: arguments.force, no_prune: arguments.no_prune };
    for_each(&arguments.images, async |image| {
        let items = client.remove_image(image, &query).await?;
        let lines = items.into_iter().flat_map(|item| {
            let untagged = item.untagged.map(|name| format!("Untagged: {name}"));
            untagged.into_iter().chain(item.deleted.map(|id| format!("Deleted: {id}")))
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    })
    .await
}
