//! `brig pull`.

use anyhow::Result;
use brig_engine_api::client::Client;
use brig_engine_api::query;

use super::tag::split_tag;
use crate::context::Context;
use crate::credentials::Credentials;
use crate::exit::{Exit, Outcome};
use crate::output::progress::{self, Show};

/// Pull an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Platform to pull: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The image: NAME[:TAG|@DIGEST]
    image: String,
}

/// What a pull prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Progress, and the image's name in the end.
    Whole,
    /// The image's name only.
    Name,
    /// Progress only, as `run` shows it.
    Progress,
    /// Nothing.
    Nothing,
}

impl View {
    pub(crate) const fn for_run(quiet: bool) -> Self {
        if quiet { Self::Nothing } else { Self::Progress }
    }
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let view = if arguments.quiet { View::Name } else { View::Whole };
    pull(context, &client, &arguments.image, arguments.platform.as_deref(), view).await?;
    Ok(Exit::SUCCESS)
}

/// Pulls an image with the credentials stored for its registry.
pub(crate) async fn pull(
    context: &Context,
    client: &Client,
    image: &str,
    platform: Option<&str>,
    view: View,
) -> Result<()> {
    let (name, tag) = split_reference(image);
    let query = query::CreateImage {
        from_image: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        platform: platform.map(str::to_owned),
        ..Default::default()
    };
    let auth = Credentials::load(&context.config_directory())?.for_image(image)?;
    let stream = client.pull_image(&query, auth.as_ref()).await?;
    let show =
        if matches!(view, View::Whole | View::Progress) { Show::Progress } else { Show::Nothing };
    progress::follow(stream, show).await?;
    if matches!(view, View::Whole | View::Name) {
        println!("{}", canonical(name, tag));
    }
    Ok(())
}

/// A name, and its digest or tag, which is `latest` when it has neither.
fn split_reference(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    let (name, tag) = split_tag(image);
    (name, tag.unwrap_or("latest"))
}

/// The full name, as docker prints it after a pull.
fn canonical(name: &str, tag: &str) -> String {
    let first = name.split('/').next().unwrap_or_default();
    let hosted = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let separator = if tag.contains(':') { '@' } else { ':' };
    match (hosted, name.contains('/')) {
        (true, _) => format!("{name}{separator}{tag}"),
        (false, true) => format!("docker.io/{name}{separator}{tag}"),
        (false, false) => format!("docker.io/library/{name}{separator}{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_and_completed() {
        assert_eq!(split_reference("a"), ("a", "latest"));
        assert_eq!(split_reference("h:1/a:2"), ("h:1/a", "2"));
        assert_eq!(split_reference("a@sha256:0"), ("a", "sha256:0"));
        assert_eq!(canonical("nginx", "latest"), "docker.io/library/nginx:latest");
        assert_eq!(canonical("me/x", "1"), "docker.io/me/x:1");
        assert_eq!(canonical("127.0.0.1:5000/x", "sha256:0"), "127.0.0.1:5000/x@sha256:0");
    }
}
