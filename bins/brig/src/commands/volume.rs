//! `brig volume`.

use brig_engine_api::models::VolumeCreateRequest;
use clap::Subcommand;

use super::{commands, inspect, prune};
use crate::context::Context;
use crate::exit::Outcome;

/// Manage volumes
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    arguments.command.execute(context).await
}

commands! {
    /// The commands of volumes.
    Command {
        Create => create,
        Export => export,
        Import => import,
        Inspect => inspect::volume,
        #[command(visible_alias = "list")]
        Ls => ls,
        Prune => prune::volumes,
        #[command(visible_alias = "remove")]
        Rm => rm,
    }
}

mod create {
    use super::{Context, Outcome, VolumeCreateRequest};
    use crate::arguments::pairs;
    use crate::exit::Exit;

    /// Create a volume
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Driver
        #[arg(short, long, default_value = "local")]
        driver: String,
        /// Option of the driver
        #[arg(short, long, value_name = "NAME=VALUE")]
        opt: Vec<String>,
        /// Label
        #[arg(long, value_name = "NAME=VALUE")]
        label: Vec<String>,
        /// Its name; one is made up when absent
        name: Option<String>,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let request = VolumeCreateRequest {
            name: arguments.name,
            driver: Some(arguments.driver),
            driver_opts: Some(pairs(&arguments.opt)),
            labels: Some(pairs(&arguments.label)),
            cluster_volume_spec: None,
        };
        println!("{}", context.client().await?.create_volume(&request).await?.name);
        Ok(Exit::SUCCESS)
    }
}

mod export {
    use std::path::PathBuf;

    use brig_engine_api::query;

    use super::{Context, Outcome};
    use crate::commands::export::write_stream;
    use crate::exit::Exit;

    /// Write a volume's files to a tar archive. Files that containers change meanwhile are archived as they are read
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Archive to write instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Compress the archive
        #[arg(long, value_name = "METHOD", default_value = "none", value_parser = ["none", "zstd"])]
        compression: String,
        /// The volume
        volume: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let client = context.client().await?;
        let query = query::ExportVolume { compression: arguments.compression };
        let (volume, output) = (arguments.volume, arguments.output);
        let open = async || client.export_volume(&volume, &query).await;
        write_stream(output.as_deref(), open).await?;
        Ok(Exit::SUCCESS)
    }
}

mod import {
    use std::path::PathBuf;

    use super::{Context, Outcome, VolumeCreateRequest};
    use crate::commands::load::archive_upload;
    use crate::exit::Exit;

    /// Extract a tar archive, plain or compressed, into a volume, which is made where it is missing; other files stay
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Archive to read instead of standard input
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// The volume
        volume: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let upload = archive_upload(arguments.input.as_deref(), "with -i or ").await?;
        let client = context.client().await?;
        let name = Some(arguments.volume.clone());
        let request = VolumeCreateRequest { name, ..VolumeCreateRequest::default() };
        client.create_volume(&request).await?;
        client.import_volume(&arguments.volume, upload).await?;
        Ok(Exit::SUCCESS)
    }
}

mod ls {
    use brig_engine_api::query;

    use super::{Context, Outcome};
    use crate::arguments::filters;
    use crate::exit::Exit;
    use crate::output::list::{Column, List, ListOptions, Row};

    const COLUMNS: &[Column] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];

    /// List volumes
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Only those that match, such as dangling=true
        #[arg(short, long, value_name = "NAME=VALUE")]
        filter: Vec<String>,
        #[command(flatten)]
        list: ListOptions,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let query = query::ListVolumes { filters: filters(&arguments.filter)? };
        let listed = context.client().await?.list_volumes(&query).await?;
        for warning in listed.warnings.unwrap_or_default() {
            eprintln!("WARNING: {warning}");
        }
        let mut volumes = listed.volumes.unwrap_or_default();
        volumes.sort_by(|left, right| left.name.cmp(&right.name));
        let rows = volumes.into_iter().map(|volume| {
            Row::new()
                .with("Driver", volume.driver)
                .with("Name", volume.name)
                .with("Mountpoint", volume.mountpoint)
                .with("Scope", volume.scope.as_ref().map(ToString::to_string).unwrap_or_default())
        });
        List { columns: COLUMNS, key: "Name", headers: &[], rows: rows.collect() }
            .print(&arguments.list)?;
        Ok(Exit::SUCCESS)
    }
}

mod rm {
    use brig_engine_api::query;

    use super::{Context, Outcome};
    use crate::exit::for_each;

    /// Remove volumes
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// A volume that is not there is no failure
        #[arg(short, long)]
        force: bool,
        /// The volumes
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        let client = context.client().await?;
        let query = query::RemoveVolume { force: arguments.force };
        for_each(&arguments.volumes, async |volume| {
            client.remove_volume(volume, &query).await?;
            Ok(volume.to_owned())
        })
        .await
    }
}
