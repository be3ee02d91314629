//! The engines that Brig is measured beside: Debian's docker.io and podman, each with directories of its own.
//!
//! All of them live in the benchmark's own network and mount namespace. What cannot run here is left out with a note.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use support::cgroups;
use support::engine::Engine;
use tempfile::TempDir;

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's dockerd with the containerd it starts. Ends with this value.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Child,
    directory: TempDir,
}

impl Docker {
    /// Starts a dockerd with one image.
    pub(crate) fn with_image(archive: &Path) -> Result<Self> {
        let docker = Self::start()?;
        load(docker.command(LOAD), archive)?;
        Ok(docker)
    }

    /// Starts a dockerd and waits until it listens.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("brig-bench-docker-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let log = fs::File::create(path("log")).context("create dockerd's log")?;
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--host")
            .arg(format!("unix://{}", path("sock").display()))
            .args(["--cgroup-parent", "/brig-bench-docker"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start dockerd (Debian's package docker.io)")?;
        let docker = Self { daemon, directory };
        docker.wait_until_it_listens()?;
        Ok(docker)
    }

    /// The docker command line on this daemon.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).args(words);
        command
    }

    /// Where everything of this daemon is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// The daemon's process id.
    pub(crate) fn daemon_pid(&self) -> u32 {
        self.daemon.id()
    }

    fn wait_until_it_listens(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("dockerd does not listen:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.daemon.wait();
        cgroups::remove("brig-bench-docker");
    }
}

/// Debian's podman, which has no daemon.
#[derive(Debug)]
pub(crate) struct Podman {
    directory: TempDir,
}

impl Podman {
    /// Podman with one image.
    pub(crate) fn with_image(archive: &Path) -> Result<Self> {
        let podman = Self::prepare()?;
        load(podman.command(LOAD), archive)?;
        Ok(podman)
    }

    /// Prepares directories and a configuration for podman.
    pub(crate) fn prepare() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("brig-bench-podman-").tempdir()?;
        // Without CAP_SYS_RESOURCE podman may not raise limits, so it is told the ones there are.
        let configuration =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        fs::write(directory.path().join("containers.conf"), configuration)
            .context("write podman's configuration")?;
        let podman = Self { directory };
        let output = podman.command(&["info"]).output().context("run podman (Debian's package)")?;
        if !output.status.success() {
            bail!("podman info: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(podman)
    }

    /// Where everything of this podman is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// podman with this value's directories. With runc, since Debian's crun asks for CAP_SYS_RESOURCE.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", path("containers.conf"))
            .arg("--root")
            .arg(path("root"))
            .arg("--runroot")
            .arg(path("run"))
            .args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file"])
            .args(["--storage-driver", "overlay", "--log-level", "error"])
            .arg("--tmpdir")
            .arg(path("tmp"))
            .args(words);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["system", "reset", "--force"]).output();
        cgroups::remove("libpod_parent");
    }
}

/// A brigd with one image, called after the benchmark.
pub(crate) fn brig_with_image(benchmark: &str, archive: &Path) -> Result<Engine> {
    let engine = Engine::start(benchmark).context("brigd cannot run here")?;
    load(engine.brig_command(LOAD), archive)?;
    Ok(engine)
}

/// What each client is told before the archive's name.
const LOAD: &[&str] = &["load", "--quiet", "--input"];

fn load(mut client: Command, archive: &Path) -> Result<()> {
    quiet(client.arg(archive))
}

/// Runs a command to its end; what it says is told only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
