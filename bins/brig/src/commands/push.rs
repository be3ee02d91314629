//! `brig push`.

use brig_engine_api::query;

use super::save::platform_object;
use super::tag::split_tag;
use crate::context::Context;
use crate::credentials::Credentials;
use crate::exit::{Exit, Outcome};
use crate::output::progress::{self, Show};

/// Push an image to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only this platform: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The image: NAME[:TAG]
    image: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let (name, tag) = split_tag(&arguments.image);
    if arguments.all_tags && tag.is_some() {
        return Err(anyhow::anyhow!("--all-tags contradicts the tag in {}", arguments.image).into());
    }
    let tag = if arguments.all_tags { None } else { Some(tag.unwrap_or("latest").to_owned()) };
    let client = context.client().await?;
    let auth = Credentials::load(&context.config_directory())?.for_image(name)?;
    let platform = arguments.platform.as_deref().map(platform_object);
    let query = query::PushImage { tag, platform };
    let stream = client.push_image(name, &query, auth.as_ref()).await?;
    progress::follow(stream, if arguments.quiet { Show::Nothing } else { Show::Progress }).await?;
    if arguments.quiet {
        println!("{}", arguments.image);
    }
    Ok(Exit::SUCCESS)
}
