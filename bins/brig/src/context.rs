//! What every command shares: where the daemon is, and a connection to it on demand.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use brig_engine_api::client::{Client, ErrorKind};

use crate::arguments::Globals;
use crate::daemon;

/// Where brigd listens when nothing else is said.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/brig/brig.sock";

/// The context of one command.
#[derive(Debug)]
pub(crate) struct Context {
    globals: Globals,
}

impl Context {
    pub(crate) const fn new(globals: Globals) -> Self {
        Self { globals }
    }

    /// The daemon's address.
    pub(crate) fn host(&self) -> &str {
        self.globals.host.as_deref().unwrap_or(DEFAULT_HOST)
    }

    /// Whether details are wanted.
    pub(crate) const fn debug(&self) -> bool {
        self.globals.debug
    }

    /// The directory that holds `config.json` with credentials.
    pub(crate) fn config_directory(&self) -> PathBuf {
        self.globals.config.clone().unwrap_or_else(|| {
            let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
            PathBuf::from(home).join(".docker")
        })
    }

    /// A connection to the daemon, which is started when it is ours to start: the default address, and nobody there.
    pub(crate) async fn client(&self) -> Result<Client> {
        match Client::connect(self.host()).await {
            Err(error) if error.kind() == ErrorKind::NotRunning && self.globals.host.is_none() => {
                daemon::start().await.context("start brigd, since none is running")?;
                Ok(Client::connect(self.host()).await?)
            }
            other => Ok(other?),
        }
    }
}
