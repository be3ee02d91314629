//! The Brig daemon: an engine, and the Docker Engine API in front of it.
//!
//! `main` reads the command line and the configuration, opens the engine, listens, and serves until SIGTERM or SIGINT.
//! Containers live in processes of their own: they neither need brigd to keep running nor notice when it restarts.
//!
//! Readiness is told in two ways, once the engine is open and the socket is there: to systemd (`sd_notify`), and by a
//! byte on the descriptor named by `--ready-fd`, which `brig` uses when it starts brigd on demand.
#![forbid(unsafe_code)]

mod arguments;
mod listen;
mod ready;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use brig_manager::{Config, Engine};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use arguments::Arguments;
use listen::Listeners;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(shell) = arguments.completion {
        arguments::print_completion(shell);
        return ExitCode::SUCCESS;
    }
    if arguments.man {
        return arguments::print_man();
    }
    start_log(&arguments);
    #[cfg(feature = "failpoints")]
    if let Some(directory) = std::env::var_os("BRIG_FAILPOINTS") {
        brig_failpoint::configure(directory.into());
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(arguments: &Arguments) {
    use std::io::IsTerminal as _;

    let level = if arguments.debug { "debug" } else { arguments.log_level.as_str() };
    // Libraries speak up only when something is wrong.
    let filter = format!("warn,brigd={level},brig_manager={level},brig_images={level}");
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn run(arguments: Arguments) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<()> {
    // Signals first: one that comes while the engine opens must not kill it halfway.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let config = configuration(&arguments)?;
    let engine = Engine::open(config).await.map_err(Report).context("open the engine")?;
    let listeners = Listeners::bind(&arguments.hosts, &arguments.group)?;
    for address in listeners.addresses() {
        tracing::info!(address, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; containers go on");
        ready::stopping();
    };
    let (listeners, sockets) = listeners.into_parts();
    ready::announce(arguments.ready_fd)?;
    brig_manager::serve(engine.clone(), listeners, shutdown).await;
    engine.close().await;
    drop(sockets);
    Ok(())
}

/// The defaults, then the file, then the command line.
fn configuration(arguments: &Arguments) -> Result<Config> {
    let mut config = Config::new("/var/lib/brig", "/run/brig");
    if let Some(path) = std::env::var_os("PATH").and_then(|path| path.into_string().ok()) {
        config.path = path;
    }
    if let Some(shim) = find_program("containerd-shim-brig-v1", &config.path) {
        config.shim = shim;
    }
    config.init = find_init(&config.path);
    let default = std::path::Path::new(arguments::DEFAULT_CONFIG);
    match &arguments.config {
        Some(file) => config.load(file).map_err(Report)?,
        None if default.exists() => config.load(default).map_err(Report)?,
        None => {}
    }
    if let Some(root) = &arguments.root {
        config.root = std::path::absolute(root).context("find the root directory")?;
    }
    if let Some(state) = &arguments.state {
        config.state = std::path::absolute(state).context("find the state directory")?;
    }
    Ok(config)
}

/// A helper program: beside our own executable, then in `path`.
fn find_program(name: &str, path: &str) -> Option<std::path::PathBuf> {
    let own = std::env::current_exe().ok();
    let beside =
        own.as_deref().and_then(std::path::Path::parent).map(|directory| directory.join(name));
    let in_path = std::env::split_paths(path).map(|directory| directory.join(name));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

/// What `--init` starts unless the configuration names a program. Programs without libraries come first, since the
/// container's image has none for them.
fn find_init(path: &str) -> Option<std::path::PathBuf> {
    ["tini-static", "docker-init", "catatonit", "tini"]
        .into_iter()
        .find_map(|name| find_program(name, path))
}

/// An engine error whose message already tells its causes.
#[derive(Debug)]
struct Report(brig_manager::Error);

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.report())
    }
}

impl std::error::Error for Report {}
