//! `brig tag`.

use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Exit, Outcome};

/// Give an image a further name
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image
    source: String,
    /// The new name: REPOSITORY[:TAG]
    target: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let (repo, tag) = split_tag(&arguments.target);
    let query = query::TagImage { repo: repo.to_owned(), tag: tag.map(str::to_owned) };
    context.client().await?.tag_image(&arguments.source, &query).await?;
    Ok(Exit::SUCCESS)
}

/// Splits `REPOSITORY[:TAG]`, where a registry's port is no tag.
pub(crate) fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && !repository.contains('@') => {
            (repository, Some(tag))
        }
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_no_tag() {
        assert_eq!(split_tag("a:1"), ("a", Some("1")));
        assert_eq!(split_tag("h:5000/a"), ("h:5000/a", None));
        assert_eq!(split_tag("h:5000/a:2"), ("h:5000/a", Some("2")));
        assert_eq!(split_tag("a@sha256:0"), ("a@sha256:0", None));
    }
}
