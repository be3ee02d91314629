//! A registry on loopback for a task: Debian's docker-registry, on a free port, with its own directory.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::packages;
use crate::process::command;

/// How long the registry may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running registry; it and all it stored go when this is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Registry {
    /// Starts a registry and waits until it listens.
    pub(crate) fn start() -> Result<Self> {
        packages::ensure(&["docker-registry"])?;
        let directory = tempfile::tempdir().context("make the registry's directory")?;
        let port = free_port()?;
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            directory.path().join("data").display()
        );
        fs::write(&config, text).context("write the registry's configuration")?;
        let process = command("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start docker-registry")?;
        let registry = Self { process, port, _directory: directory };
        registry.wait()?;
        Ok(registry)
    }

    /// `HOST:PORT`, the first part of an image's name.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("docker-registry does not listen on port {} after {START_LIMIT:?}", self.port);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("read the port")?.port())
}
