//! `brig images`.

use brig_engine_api::models::ImageSummary;
use brig_engine_api::query;

use super::tag::split_tag;
use crate::arguments::filters;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::list::{Column, List, ListOptions, Row};

const HEADERS: &[Column] = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED AT", "CreatedAt"),
    ("SIZE", "Size"),
    ("CONTAINERS", "Containers"),
];

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Intermediate images, too
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that match, such as dangling=true or reference=web*
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    list: ListOptions,
    /// Only images of this repository and tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let mut filters = filters(&arguments.filter)?;
    if let Some(reference) = &arguments.reference {
        filters.add("reference", reference.clone());
    }
    let query = query::ListImages {
        all: arguments.all,
        filters,
        digests: arguments.digests,
        ..Default::default()
    };
    let images = context.client().await?.list_images(&query).await?;
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if arguments.digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    let rows = images.iter().flat_map(|image| rows(image, arguments.no_trunc)).collect();
    List { columns: &columns, key: "ID", headers: HEADERS, rows }.print(&arguments.list)?;
    Ok(Exit::SUCCESS)
}

/// One row for each name of an image.
fn rows(image: &ImageSummary, whole: bool) -> Vec<Row> {
    let digest_of = |repository: &str| {
        let digests = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
        digests
            .filter(|(name, _)| *name == repository)
            .map(|(_, digest)| digest)
            .next()
            .unwrap_or("<none>")
    };
    let mut names: Vec<(&str, &str)> = image
        .repo_tags
        .iter()
        .map(|name| split_tag(name))
        .map(|(name, tag)| (name, tag.unwrap_or("<none>")))
        .collect();
    if names.is_empty() {
        let repository = image
            .repo_digests
            .first()
            .and_then(|name| name.split_once('@'))
            .map_or("<none>", |(name, _)| name);
        names.push((repository, "<none>"));
    }
    let id = if whole { image.id.clone() } else { human::short_id(&image.id).to_owned() };
    names
        .into_iter()
        .map(|(repository, tag)| {
            Row::new()
                .with("Repository", repository)
                .with("Tag", tag)
                .with("Digest", digest_of(repository))
                .with("ID", id.clone())
                .with("CreatedSince", human::ago(image.created))
                .with("CreatedAt", human::date(image.created))
                .with("Size", human::signed_size(image.size))
                .with(
                    "Containers",
                    if image.containers < 0 {
                        "N/A".to_owned()
                    } else {
                        image.containers.to_string()
                    },
                )
        })
        .collect()
}
