//! `brig system check`.

use anyhow::{Context as _, Result, bail};
use brig_engine_api::client::Client;
use brig_engine_api::types::SystemCheck;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::output::human;
use crate::output::progress::{self, Show};

/// Compare the engine's records with what exists, and hash all content again
///
/// Containers are compared with their shims, bundles, cgroups, network namespaces, links, snapshots and directories;
/// images with their content, every byte of which is hashed, and with their unpacked layers. The exit code is 1 when
/// something is left that is damaged or does not fit together.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Remove what has no owner, fetch damaged content again from its registry, unpack missing layers
    #[arg(long)]
    repair: bool,
    /// Compare records only: do not hash content
    #[arg(long)]
    quick: bool,
    /// No progress
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Output: json or text
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["json", "text"])]
    format: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    let report = if arguments.quick {
        client.system_check(arguments.repair).await?
    } else {
        check_content(&client, &arguments).await?
    };
    match arguments.format.as_str() {
        "json" => {
            let text = serde_json::to_string_pretty(&report).context("write the report")?;
            println!("{text}");
        }
        _ => print_text(&report),
    }
    let left = report.findings.iter().any(|finding| !finding.repaired && !finding.harmless);
    Ok(if left { Exit::FAILED } else { Exit::SUCCESS })
}

async fn check_content(client: &Client, arguments: &Arguments) -> Result<SystemCheck> {
    use std::io::IsTerminal as _;

    let stream = client.system_check_content(arguments.repair).await?;
    // Lines of progress would be in the way of whoever reads the report.
    let bars = !arguments.quiet && arguments.format == "text" && std::io::stdout().is_terminal();
    let show = if bars { Show::Progress } else { Show::Nothing };
    let messages = progress::follow(stream, show).await?;
    let Some(report) = messages.into_iter().rev().find_map(|message| message.aux) else {
        bail!("the engine ended before the check did; look at its log and try again")
    };
    serde_json::from_value(report).context("read the engine's report")
}

fn print_text(report: &SystemCheck) {
    for finding in &report.findings {
        let end = if finding.repaired { "repaired" } else { finding.remedy.as_str() };
        println!("{}: {}; {end}", finding.object, finding.problem);
    }
    let content = match report.blobs {
        0 => String::new(),
        blobs => format!(", {blobs} blobs with {}", human::signed_size(report.bytes)),
    };
    println!(
        "Checked {} containers, {} images and {} networks{content}: {}",
        report.containers,
        report.images,
        report.networks,
        match report.findings.len() {
            0 => "all is well".to_owned(),
            count => format!("{count} findings"),
        }
    );
}
