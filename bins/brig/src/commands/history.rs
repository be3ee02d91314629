//! `brig history`.

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::list::{Column, List, ListOptions, Row};

const COLUMNS: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// Show how an image came about
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    list: ListOptions,
    /// The image
    image: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let history = context.client().await?.image_history(&arguments.image).await?;
    let whole = arguments.no_trunc;
    let rows = history
        .iter()
        .map(|item| {
            let id = if whole || item.id == "<missing>" {
                item.id.as_str()
            } else {
                human::short_id(&item.id)
            };
            let by =
                if whole { item.created_by.clone() } else { human::ellipsis(&item.created_by, 45) };
            Row::new()
                .with("ID", id)
                .with("CreatedSince", human::ago(item.created))
                .with("CreatedAt", human::date(item.created))
                .with("CreatedBy", by)
                .with("Size", human::signed_size(item.size))
                .with("Comment", item.comment.clone())
        })
        .collect();
    List { columns: COLUMNS, key: "ID", headers: &[("CREATED AT", "CreatedAt")], rows }
        .print(&arguments.list)?;
    Ok(Exit::SUCCESS)
}
