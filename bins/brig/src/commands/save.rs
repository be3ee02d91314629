//! `brig save`.

use std::path::PathBuf;

use brig_engine_api::query;

use super::export::write_stream;
use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Save images to an archive
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Archive to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let query = query::SaveImages { names: arguments.images, platform: None };
    let client = context.client().await?;
    write_stream(arguments.output.as_deref(), async || client.save_images(&query).await).await?;
    Ok(Exit::SUCCESS)
}
