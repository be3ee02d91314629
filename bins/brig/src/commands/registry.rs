//! `brig registry`: a registry of one's own. It needs no daemon.

use clap::Subcommand;

use super::commands;
use crate::context::Context;
use crate::exit::Outcome;

/// Serve images to others
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    arguments.command.execute(context).await
}

commands! {
    /// The commands of registries.
    Command {
        Serve => serve,
        Gc => gc,
    }
}

/// Where a registry keeps its data when nothing else is said.
const DEFAULT_ROOT: &str = "/var/lib/brig-registry";

mod serve {
    use std::io::IsTerminal as _;
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use anyhow::Context as _;
    use brig_registry::{Config, Registry, Upstream};
    use tokio::net::TcpListener;
    use tokio::signal::unix::{SignalKind, signal};
    use tracing_subscriber::EnvFilter;

    use super::{Context, DEFAULT_ROOT, Outcome};
    use crate::arguments::time::duration;
    use crate::exit::Exit;

    /// Serve a registry until SIGINT or SIGTERM
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Address and port; port 0 takes a free one, which is printed
        #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Where everything is kept
        #[arg(long, default_value = DEFAULT_ROOT, value_name = "DIR")]
        root: PathBuf,
        /// Ask for a login; a file of user:bcrypt-hash lines, made with htpasswd -B
        #[arg(long, value_name = "FILE")]
        htpasswd: Option<PathBuf>,
        /// Serve TLS with this certificate chain, PEM
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// The certificate's key, PEM
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
        /// Take no pushes and deletions
        #[arg(long)]
        read_only: bool,
        /// Be a cache of the registry at this address; its credentials come from config.json
        #[arg(long, value_name = "URL")]
        proxy: Option<String>,
        /// Time between two garbage collections; 0 for none
        #[arg(long, default_value = "1h", value_name = "DURATION")]
        gc_interval: String,
        /// Keep what no manifest refers to for this long
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        gc_grace: String,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        start_log(context.debug());
        let listen = arguments.listen;
        let config = config(context, arguments)?;
        let open_door = config.htpasswd.is_none() && !config.read_only;
        if !listen.ip().is_loopback() && open_door {
            tracing::warn!("everyone who reaches {listen} may push and delete; give --htpasswd");
        }
        if !listen.ip().is_loopback() && config.tls.is_none() {
            tracing::warn!(
                "everything that passes {listen} can be read and changed; give --tls-cert and --tls-key"
            );
        }
        // The command line has one thread; a server wants all that there are.
        let served = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("start the runtime")?.block_on(serve(listen, config))
        });
        served.await.context("serve the registry")??;
        Ok(Exit::SUCCESS)
    }

    async fn serve(listen: SocketAddr, config: Config) -> anyhow::Result<()> {
        // Signals first: one that comes while the registry opens must not kill it halfway.
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let root = config.root.clone();
        let registry = tokio::task::spawn_blocking(move || Registry::open(config)).await?;
        let registry = registry.with_context(|| format!("open registry {}", root.display()))?;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr().context("find the address")?;
        println!("listening on {address}");
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
        };
        registry.serve(listener, shutdown).await.context("serve")
    }

    fn config(context: &Context, arguments: Arguments) -> anyhow::Result<Config> {
        let mut config = Config::new(arguments.root);
        config.htpasswd = arguments.htpasswd;
        config.tls = arguments.tls_cert.zip(arguments.tls_key);
        config.read_only = arguments.read_only;
        config.collect_every = duration(&arguments.gc_interval).context("--gc-interval")?;
        config.grace = duration(&arguments.gc_grace).context("--gc-grace")?;
        config.upstream = arguments.proxy.map(|url| {
            let mut upstream = Upstream::new(url);
            upstream.credentials.docker_config = Some(context.config_directory());
            let path = std::env::var_os("PATH").unwrap_or_default();
            upstream.credentials.helpers = std::env::split_paths(&path).collect();
            upstream
        });
        Ok(config)
    }

    fn start_log(debug: bool) {
        let level = if debug { "debug" } else { "info" };
        let filter = format!("warn,brig={level},brig_registry={level},brig_images={level}");
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
}

mod gc {
    use std::path::PathBuf;

    use anyhow::Context as _;
    use brig_registry::{Config, Registry};

    use super::{Context, DEFAULT_ROOT, Outcome};
    use crate::arguments::time::duration;
    use crate::exit::Exit;
    use crate::output::human;

    /// Remove what no manifest refers to; safe while the registry serves
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        /// Where the registry keeps its data
        #[arg(long, default_value = DEFAULT_ROOT, value_name = "DIR")]
        root: PathBuf,
        /// Keep what was sent or asked for within this time
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        grace: String,
    }

    pub(crate) async fn execute(_context: &Context, arguments: Arguments) -> Outcome {
        let grace = duration(&arguments.grace).context("--grace")?;
        let root = arguments.root;
        if !root.join("content").is_dir() {
            return Err(anyhow::anyhow!("{} holds no registry", root.display()).into());
        }
        let collected = tokio::task::spawn_blocking(move || {
            Registry::open(Config::new(root))?.collect_garbage(grace)
        });
        let collected = collected.await.context("collect garbage")??;
        println!("{} blobs, {} freed", collected.blobs, human::size(collected.bytes));
        Ok(Exit::SUCCESS)
    }
}
