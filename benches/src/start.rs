//! How long `run --rm IMAGE true` takes an operator, from the command's start to the prompt's return.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use support::engine::{Engine, pack_busybox};

use crate::peers::{Docker, Podman, load};
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
    let engine = Engine::start("bench").context("brigd cannot run here")?;
    load(engine.brig_command(&["load", "--quiet", "--input"]), &archive)?;
    let docker = present(&mut report, "docker", docker_with(&archive));
    let podman = present(&mut report, "podman", podman_with(&archive));
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

fn docker_with(archive: &Path) -> Result<Docker> {
    let docker = Docker::start()?;
    load(docker.command(&["load", "--quiet", "--input"]), archive)?;
    Ok(docker)
}

fn podman_with(archive: &Path) -> Result<Podman> {
    let podman = Podman::prepare()?;
    load(podman.command(&["load", "--quiet", "--input"]), archive)?;
    Ok(podman)
}

/// A peer that is here, else a note on why it is not.
fn present<T>(report: &mut Report, name: &str, peer: Result<T>) -> Option<T> {
    peer.map_err(|error| report.notes.push(format!("{name} was not measured: {error:#}"))).ok()
}
