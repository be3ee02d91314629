//! How long images take to come and to go: pull, removal, load and push, and what memory a pull takes.
//!
//! Every contestant has a registry of its own over the same files, on loopback in its own network namespace. Before each
//! measurement the filesystem of their files (`TMPDIR`) is synced, so that nobody pays for what another has left in memory.

mod corpus;
mod peer;
mod registry;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Args;
use support::engine::Engine;

use crate::peers::{Docker, Podman};
use crate::sample::{Figure, Report, Series, milliseconds};
use corpus::{Corpus, Kind};
use peer::{Peer, in_mebibytes};
use registry::{Namespace, PULL_PORT, Registries, Registry};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds that are counted
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these images
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::A, Kind::B, Kind::C])]
    images: Vec<Kind>,
    /// How large the images are, in hundredths of their size: for a first look
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    percent: u8,
    /// Without docker and podman
    #[arg(long)]
    alone: bool,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let path = directory.path();
    let images = path.join("images");
    pack(options, path, &images)?;
    let mut report = Report::default();
    let overlay = Engine::start("images").context("brigd cannot run here")?;
    let erofs = Engine::start_with("images-erofs", "snapshotter = \"erofs\"")
        .context("brigd cannot run here")?;
    let registries = |namespace, own: &str| Registries::start(&namespace, &images, &path.join(own));
    if options.percent < 100 {
        report.notes.push(format!("the images have {} % of their size", options.percent));
    }
    let (docker, podman);
    let mut peers = Vec::new();
    for (name, engine) in [("brig", &overlay), ("brig, erofs", &erofs)] {
        let beside = registries(Namespace::of(engine.holder()), name)?;
        peers.push(Peer::brig(name, engine, beside));
    }
    if !options.alone {
        let beside = Rc::new(registries(Namespace::ours(), "peers")?);
        docker = report.present("docker", Docker::start());
        peers.extend(docker.iter().map(|docker| Peer::docker(docker, &beside)));
        podman = report.present("podman", Podman::prepare());
        peers.extend(podman.iter().map(|podman| Peer::podman(podman, &beside)));
    }
    for &kind in &options.images {
        report.figures.extend(pull_and_remove(kind, options.rounds, &peers)?);
        if kind == Kind::A {
            report.figures.extend(load_and_push(&archive(path, kind), options.rounds, &peers)?);
        }
    }
    Ok(report)
}

fn archive(directory: &Path, kind: Kind) -> PathBuf {
    directory.join(format!("{}.tar", kind.name()))
}

/// Makes the images and fills the files of a registry with them.
fn pack(options: &Options, directory: &Path, images: &Path) -> Result<()> {
    let corpus = Corpus::gather()?;
    let settings = directory.join("registry.yml");
    let registry = Registry::start(&Namespace::ours(), PULL_PORT, images, &settings)?;
    for &kind in &options.images {
        eprintln!("packing {}", kind.title());
        let archive = archive(directory, kind);
        corpus.pack(kind, options.percent, &registry.image(kind.name()), &archive)?;
        registry.take(&archive, kind.name())?;
    }
    Ok(())
}

/// One figure's series, in the order of the contestants.
struct Rows(Vec<Series>);

impl Rows {
    fn new(peers: &[Peer<'_>]) -> Self {
        Self(peers.iter().map(|peer| Series::new(&peer.name)).collect())
    }

    fn push(&mut self, at: usize, value: f64) {
        self.0[at].values.push(value);
    }

    fn figure(self, what: &str, title: &str, unit: &'static str) -> Figure {
        let measured = self.0.into_iter().filter(|series| !series.values.is_empty());
        Figure { title: format!("{what} {title}"), unit, series: measured.collect() }
    }
}

fn pull_and_remove(kind: Kind, rounds: usize, peers: &[Peer<'_>]) -> Result<Vec<Figure>> {
    let name = kind.name();
    let (mut pulls, mut memory) = (Rows::new(peers), Rows::new(peers));
    let (mut removals, mut deletions) = (Rows::new(peers), Rows::new(peers));
    let mut overhead = Rows::new(peers);
    let mut floor = Series::new("curl | zcat > /dev/null");
    let source = &peers.first().context("nobody to measure")?.registries.source;
    for round in 0..=rounds {
        for (at, peer) in peers.iter().enumerate() {
            let context = || format!("{}, round {round} of {}", peer.name, kind.title());
            // Once is enough, and slow where files are many.
            let is_last = round == rounds;
            let before = if is_last { peer.overhead().with_context(context)? } else { 0.0 };
            let pull = peer.pull(name).with_context(context)?;
            if is_last {
                overhead.push(at, peer.overhead().with_context(context)? - before);
            }
            let (command, all) = peer.remove(name).with_context(context)?;
            if round > 0 {
                pulls.push(at, pull.milliseconds);
                pull.memory_mib.into_iter().for_each(|mib| memory.push(at, mib));
                removals.push(at, command);
                deletions.push(at, all);
            }
        }
        let taken = milliseconds(&mut source.floor(name)?)?;
        if round > 0 {
            floor.values.push(taken);
        }
        eprint!("\r{}: round {round} of {rounds}", kind.title());
    }
    eprintln!();
    pulls.0.push(floor);
    let mut stored = Series::new("the compressed layers");
    let sizes = source.layers(name)?;
    stored.values.push(in_mebibytes(sizes.iter().map(|(_, size)| size).sum()));
    overhead.0.push(stored);
    Ok(vec![
        pulls.figure("pull and unpack", kind.title(), "ms"),
        memory.figure("peak memory of the daemon above idle, pull of", kind.title(), "MiB"),
        overhead.figure("store beside the unpacked layers after a pull of", kind.title(), "MiB"),
        removals.figure("rmi", kind.title(), "ms"),
        deletions.figure("rmi until all is deleted", kind.title(), "ms"),
    ])
}

fn load_and_push(archive: &Path, rounds: usize, peers: &[Peer<'_>]) -> Result<Vec<Figure>> {
    let name = Kind::A.name();
    let (mut loads, mut pushes) = (Rows::new(peers), Rows::new(peers));
    for round in 0..=rounds {
        for (at, peer) in peers.iter().enumerate() {
            let context = || format!("{}, round {round} of load and push", peer.name);
            let load = peer.load(archive).with_context(context)?;
            let push = peer.push(name).with_context(context)?;
            peer.remove(name).with_context(context)?;
            if round > 0 {
                loads.push(at, load);
                pushes.push(at, push);
            }
        }
        eprint!("\rload and push: round {round} of {rounds}");
    }
    eprintln!();
    let title = Kind::A.title();
    Ok(vec![
        loads.figure("load", title, "ms"),
        pushes.figure("push to an empty registry,", title, "ms"),
    ])
}
