//! `brig commit`.

use brig_engine_api::query;

use super::tag::split_tag;
use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Make an image of what a container changed
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Who makes it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    /// VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Why, for the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Freeze the container meanwhile
    #[arg(
        short,
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    pause: bool,
    /// The container
    container: String,
    /// The image's name: REPOSITORY[:TAG]
    name: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let name = arguments.name.unwrap_or_default();
    let (repository, tag) = split_tag(&name);
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let query = query::CommitContainer {
        container: Some(arguments.container),
        repo: text(repository.to_owned()),
        tag: tag.map(str::to_owned),
        comment: text(arguments.message),
        author: text(arguments.author),
        pause: Some(arguments.pause),
        changes: arguments.change,
    };
    println!("{}", context.client().await?.commit_container(&query).await?);
    Ok(Exit::SUCCESS)
}
