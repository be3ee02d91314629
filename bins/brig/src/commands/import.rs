//! `brig import`.

use std::path::Path;

use brig_engine_api::query;

use super::load::archive_upload;
use super::tag::split_tag;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::progress::{self, Show};

/// Make an image of an archive of a file system
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    /// VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Why, for the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// The platform that it is for: OS/ARCHITECTURE[/VARIANT]
    #[arg(long)]
    platform: Option<String>,
    /// The archive (tar, plain or compressed with gzip or zstd): a file, a URL that the engine gets it from, or - for
    /// standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// The image's name: REPOSITORY[:TAG]
    name: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let source = arguments.source.as_str();
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let file = Some(Path::new(source)).filter(|_| source != "-");
    let upload = if is_url { None } else { Some(archive_upload(file, "").await?) };
    let name = arguments.name.unwrap_or_default();
    let (repository, tag) = split_tag(&name);
    let query = query::CreateImage {
        from_src: Some(if is_url { source.to_owned() } else { "-".to_owned() }),
        repo: Some(repository.to_owned()).filter(|repository| !repository.is_empty()),
        tag: tag.map(str::to_owned),
        message: Some(arguments.message).filter(|message| !message.is_empty()),
        changes: arguments.change,
        platform: arguments.platform,
        ..query::CreateImage::default()
    };
    let stream = context.client().await?.import_image(&query, upload).await?;
    let messages = progress::follow(stream, Show::Nothing).await?;
    messages.into_iter().filter_map(|message| message.status).for_each(|id| println!("{id}"));
    Ok(Exit::SUCCESS)
}
