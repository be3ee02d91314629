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
        remove_cgroups("brig-bench-docker");
    }
}

/// Debian's podman, which has no daemon.
#[derive(Debug)]
pub(crate) struct Podman {
    directory: TempDir,
}

impl Podman {
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
        remove_cgroups("libpod_parent");
    }
}

/// Loads an image archive by the command that `client` makes.
pub(crate) fn load(mut client: Command, archive: &Path) -> Result<()> {
    let output = client.arg(archive).stdin(Stdio::null()).output().context("load the image")?;
    if !output.status.success() {
        bail!("{client:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Removes a peer's parent cgroup and the empty ones beneath it, in whichever hierarchies they are.
fn remove_cgroups(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for hierarchy in hierarchies {
        remove_cgroup(&hierarchy.path().join(name));
    }
    remove_cgroup(&Path::new("/sys/fs/cgroup").join(name));
}

fn remove_cgroup(path: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    // The directory of a cgroup is removed as if it were empty; one that is still in use stays, and a leak look finds it.
    let _ = fs::remove_dir(path);
}
