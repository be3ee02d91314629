//! `brig system`.

mod check;

use clap::Subcommand;

use super::prune::{self, confirmed};
use super::{commands, events, info};
use crate::context::Context;
use crate::exit::Outcome;

/// Manage the engine
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    arguments.command.execute(context).await
}

commands! {
    /// The commands of the engine.
    Command {
        Check => check,
        Df => df,
        Events => events,
        Info => info,
        Prune => prune_all,
    }
}

mod df {
    use brig_engine_api::query;
    use brig_engine_api::types::DiskUsage;

    use super::{Context, Outcome};
    use crate::exit::Exit;
    use crate::output::human;
    use crate::output::list::{Column, List, ListOptions, Row};

    const COLUMNS: &[Column] = &[
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ];

    /// Show what takes how much disk
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        #[command(flatten)]
        list: ListOptions,
        /// Show every object beneath the engine's root, and which images, containers and transfers hold it
        #[arg(long)]
        explain: bool,
    }

    const EXPLAINED: &[Column] =
        &[("TYPE", "Type"), ("NAME", "Name"), ("SIZE", "Size"), ("HELD BY", "HeldBy")];

    async fn explain(context: &Context, options: &ListOptions) -> Outcome {
        let entries = context.client().await?.explain_disk_usage().await?;
        let total = entries.iter().map(|entry| entry.bytes).sum();
        let rows = entries.into_iter().map(|entry| {
            let held_by = entry.holders.join(", ");
            Row::new()
                .with("Type", entry.kind)
                .with("Name", entry.name)
                .with("Size", human::signed_size(entry.bytes))
                .with("Bytes", entry.bytes.to_string())
                .with("HeldBy", held_by)
        });
        List {
            columns: EXPLAINED,
            key: "Name",
            headers: &[("BYTES", "Bytes")],
            rows: rows.collect(),
        }
        .print(options)?;
        if !options.quiet && matches!(options.format.as_deref(), None | Some("table")) {
            println!("Total: {}", human::signed_size(total));
        }
        Ok(Exit::SUCCESS)
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        if arguments.explain {
            return explain(context, &arguments.list).await;
        }
        let usage = context.client().await?.disk_usage(&query::SystemDiskUsage::default()).await?;
        List { columns: COLUMNS, key: "Type", headers: &[], rows: rows(&usage) }
            .print(&arguments.list)?;
        Ok(Exit::SUCCESS)
    }

    fn rows(usage: &DiskUsage) -> Vec<Row> {
        let images = usage.images.clone().unwrap_or_default();
        let unused: i64 =
            images.iter().filter(|image| image.containers < 1).map(|image| image.size).sum();
        let containers = usage.containers.clone().unwrap_or_default();
        let size = |running: bool| -> i64 {
            let chosen = containers.iter().filter(|container| is_running(container) || !running);
            chosen.filter_map(|container| container.size_rw).sum()
        };
        let volumes = usage.volumes.clone().unwrap_or_default();
        let used = |volume: &brig_engine_api::models::Volume| {
            volume.usage_data.as_ref().map_or((0, 0), |data| (data.ref_count, data.size.max(0)))
        };
        let active_volumes = volumes.iter().filter(|volume| used(volume).0 > 0).count();
        let volume_size: i64 = volumes.iter().map(|volume| used(volume).1).sum();
        let free_size: i64 =
            volumes.iter().filter(|volume| used(volume).0 < 1).map(|volume| used(volume).1).sum();
        vec![
            row(
                "Images",
                images.len(),
                images.iter().filter(|image| image.containers > 0).count(),
                usage.layers_size,
                unused.min(usage.layers_size),
            ),
            row(
                "Containers",
                containers.len(),
                containers.iter().filter(|container| is_running(container)).count(),
                size(false),
                size(false) - size(true),
            ),
            row("Local Volumes", volumes.len(), active_volumes, volume_size, free_size),
        ]
    }

    fn is_running(container: &brig_engine_api::models::ContainerSummary) -> bool {
        container.state.as_ref().is_some_and(|state| {
            ["running", "paused", "restarting"].contains(&state.to_string().as_str())
        })
    }

    fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
        let percent = if size > 0 {
            format!(" ({}%)", reclaimable.saturating_mul(100) / size)
        } else {
            String::new()
        };
        Row::new()
            .with("Type", kind)
            .with("TotalCount", total.to_string())
            .with("Active", active.to_string())
            .with("Size", human::signed_size(size))
            .with("Reclaimable", format!("{}{percent}", human::signed_size(reclaimable)))
    }
}

mod prune_all {
    use super::{Context, Outcome, confirmed, prune};
    use crate::arguments::filters;
    use crate::exit::Exit;
    use crate::output::human;

    /// Remove stopped containers, unused networks and images
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// All unused images, not only those without a name
        #[arg(short, long)]
        all: bool,
        /// Anonymous volumes, too
        #[arg(long)]
        volumes: bool,
        #[command(flatten)]
        prune: prune::PruneOptions,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let warning = "This will remove all stopped containers, unused networks and unused images.";
        if !confirmed(arguments.prune.force, warning)? {
            return Ok(Exit::SUCCESS);
        }
        let filters = filters(&arguments.prune.filter)?;
        let client = context.client().await?;
        let containers = prune::prune_containers(&client, filters.clone()).await?;
        containers.print_names("Deleted Containers");
        prune::prune_networks(&client, filters.clone()).await?.print_names("Deleted Networks");
        let mut bytes = containers.bytes.unwrap_or_default();
        if arguments.volumes {
            let volumes = prune::prune_volumes(&client, filters.clone()).await?;
            volumes.print_names("Deleted Volumes");
            bytes += volumes.bytes.unwrap_or_default();
        }
        let filters = if arguments.all { filters.with("dangling", "false") } else { filters };
        let images = prune::prune_images(&client, filters).await?;
        images.print_names("Deleted Images");
        bytes += images.bytes.unwrap_or_default();
        println!("Total reclaimed space: {}", human::signed_size(bytes));
        Ok(Exit::SUCCESS)
    }
}
