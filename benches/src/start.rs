//! How long `run --rm IMAGE true` takes an operator, from the command's start to the prompt's return.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use support::engine::pack_busybox;

use crate::peers::{Docker, Podman, brig_with_image};
use crate::sample::{Contestant, Figure, Report, interleave, milliseconds};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds that are counted
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let archive = directory.path().join("busybox.tar");
    pack_busybox(&archive);
    let mut report = Report::default();
    let engine = brig_with_image("bench", &archive)?;
    let docker = report.present("docker", Docker::with_image(&archive));
    let podman = report.present("podman", Podman::with_image(&archive));
    for network in ["bridge", "none"] {
        let words = ["run", "--rm", "--network", network, "busybox", "true"];
        let mut contestants = vec![contestant("brig", || engine.brig_command(&words))];
        contestants.extend(docker.iter().map(|it| contestant("docker", || it.command(&words))));
        contestants.extend(podman.iter().map(|it| contestant("podman", || it.command(&words))));
        let title = words.join(" ");
        let series = interleave(options.rounds, contestants)?;
        report.figures.push(Figure { title, unit: "ms", series });
    }
    Ok(report)
}

fn contestant<'a>(name: &str, command: impl Fn() -> Command + 'a) -> Contestant<'a> {
    (name.to_owned(), Box::new(move || milliseconds(&mut command())))
}
