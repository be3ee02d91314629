//! `prune` of each kind of object.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use brig_engine_api::Filters;
use brig_engine_api::client::Client;
use brig_engine_api::query;

use crate::arguments::filters;
use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;

/// The flags of every prune.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneOptions {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only those that match, such as until=24h or label=temporary
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// Asks before something is removed for good; yes without a terminal is never assumed.
pub(crate) fn confirmed(force: bool, warning: &str) -> Result<bool> {
    if force {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{warning} Give --force to do so without being asked");
    }
    print!("WARNING! {warning}\nAre you sure you want to continue? [y/N] ");
    std::io::stdout().flush().context("write the question")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What a prune removed, and how many bytes that freed.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) names: Vec<String>,
    pub(crate) bytes: Option<i64>,
}

impl Pruned {
    /// Prints the names under a heading, if there are any.
    pub(crate) fn print_names(&self, heading: &str) {
        if !self.names.is_empty() {
            println!("{heading}:");
            self.names.iter().for_each(|name| println!("{name}"));
            println!();
        }
    }
}

/// Removes stopped containers.
pub(crate) async fn prune_containers(client: &Client, filters: Filters) -> Result<Pruned> {
    let pruned = client.prune_containers(&query::Prune { filters }).await?;
    Ok(Pruned {
        names: pruned.containers_deleted.unwrap_or_default(),
        bytes: pruned.space_reclaimed,
    })
}

/// Removes unused images; without `dangling=false` in the filters only those without a name.
pub(crate) async fn prune_images(client: &Client, filters: Filters) -> Result<Pruned> {
    let pruned = client.prune_images(&query::Prune { filters }).await?;
    let names = pruned.images_deleted.unwrap_or_default().into_iter().filter_map(|item| {
        item.untagged
            .map(|name| format!("untagged: {name}"))
            .or_else(|| item.deleted.map(|id| format!("deleted: {id}")))
    });
    Ok(Pruned { names: names.collect(), bytes: pruned.space_reclaimed })
}

/// Removes networks without containers.
pub(crate) async fn prune_networks(client: &Client, filters: Filters) -> Result<Pruned> {
    let pruned = client.prune_networks(&query::Prune { filters }).await?;
    Ok(Pruned { names: pruned.networks_deleted.unwrap_or_default(), bytes: None })
}

/// Removes unused volumes; without `all=true` in the filters only anonymous ones.
pub(crate) async fn prune_volumes(client: &Client, filters: Filters) -> Result<Pruned> {
    let pruned = client.prune_volumes(&query::Prune { filters }).await?;
    Ok(Pruned { names: pruned.volumes_deleted.unwrap_or_default(), bytes: pruned.space_reclaimed })
}

/// Declares the command of one kind.
macro_rules! prune_of {
    ($($name:ident, $prune:ident, $about:literal, $warning:literal, $heading:literal, $all:literal: $all_filter:expr;)*) => {$(
        pub(crate) mod $name {
            use super::{Context, Exit, Outcome, PruneOptions, confirmed, filters, human};

            #[doc = $about]
            #[derive(Debug, clap::Args)]
            pub(crate) struct Arguments {
                #[doc = $all]
                #[arg(short, long, hide = $all.starts_with("No effect"))]
                all: bool,
                #[command(flatten)]
                prune: PruneOptions,
            }

            pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
                if !confirmed(arguments.prune.force, $warning)? {
                    return Ok(Exit::SUCCESS);
                }
                let mut filters = filters(&arguments.prune.filter)?;
                let all: Option<(&str, &str)> = $all_filter;
                if let (true, Some((name, value))) = (arguments.all, all) {
                    filters.add(name, value);
                }
                let pruned = super::$prune(&context.client().await?, filters).await?;
                pruned.print_names($heading);
                if let Some(bytes) = pruned.bytes {
                    println!("Total reclaimed space: {}", human::signed_size(bytes));
                }
                Ok(Exit::SUCCESS)
            }
        }
    )*};
}

prune_of! {
    containers, prune_containers, "Remove all stopped containers", "This will remove all stopped containers.", "Deleted Containers", "No effect: all stopped containers are removed": None;
    images, prune_images, "Remove unused images", "This will remove unused images.", "Deleted Images", "Those with a name, too": Some(("dangling", "false"));
    networks, prune_networks, "Remove all unused networks", "This will remove all networks not used by any container.", "Deleted Networks", "No effect: all unused networks are removed": None;
    volumes, prune_volumes, "Remove unused volumes", "This will remove volumes not used by any container.", "Deleted Volumes", "Those with a name, too": Some(("all", "true"));
}
