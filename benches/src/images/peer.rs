//! One engine as the benchmark of images sees it: its client, the registries it can reach, and its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use support::engine::Engine;

use super::registry::Registries;
use crate::peers::{Docker, Podman, quiet};
use crate::sample::{in_milliseconds, milliseconds};

/// How long the deletion of a removed image may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The client of an engine with some words.
type Client<'a> = Box<dyn Fn(&[&str]) -> Command + 'a>;

/// A contestant.
pub(crate) struct Peer<'a> {
    pub(crate) name: String,
    client: Client<'a>,
    /// What clients of this engine are told to make them speak to a registry without TLS.
    plain: &'static [&'static str],
    daemon: Option<u32>,
    /// What removed layers are renamed to until they are deleted, where an engine does that.
    removed: Option<PathBuf>,
    pub(crate) registries: Rc<Registries>,
}

/// What a pull came to.
pub(crate) struct Pull {
    pub(crate) milliseconds: f64,
    /// Peak of the daemon's resident memory above what it was before.
    pub(crate) memory_mib: Option<f64>,
}

impl<'a> Peer<'a> {
    pub(crate) fn brig(name: &str, engine: &'a Engine, registries: Registries) -> Self {
        let client = Box::new(|words: &[&str]| engine.brig_command(words));
        let mut peer = Self::new(name, client, &Rc::new(registries));
        peer.daemon = Some(engine.daemon_pid());
        peer.removed = Some(engine.path("root/storage/snapshots"));
        peer
    }

    pub(crate) fn docker(docker: &'a Docker, registries: &Rc<Registries>) -> Self {
        let client = Box::new(|words: &[&str]| docker.command(words));
        let mut peer = Self::new("docker", client, registries);
        peer.daemon = Some(docker.daemon_pid());
        peer
    }

    pub(crate) fn podman(podman: &'a Podman, registries: &Rc<Registries>) -> Self {
        let client = Box::new(|words: &[&str]| podman.command(words));
        let mut peer = Self::new("podman", client, registries);
        peer.plain = &["--tls-verify=false"];
        peer
    }

    fn new(name: &str, client: Client<'a>, registries: &Rc<Registries>) -> Self {
        let (name, registries) = (name.to_owned(), Rc::clone(registries));
        Self { name, client, plain: &[], daemon: None, removed: None, registries }
    }

    fn words(&self, verb: &'static str, rest: &[&str]) -> Command {
        let mut words = vec![verb];
        if matches!(verb, "pull" | "push") {
            words.extend(self.plain);
        }
        words.extend(rest);
        (self.client)(&words)
    }

    pub(crate) fn pull(&self, name: &str) -> Result<Pull> {
        let before = self.daemon.map(reset_peak).transpose()?;
        rustix::fs::sync();
        let mut command = self.words("pull", &["--quiet", &self.registries.source.image(name)]);
        let milliseconds = milliseconds(&mut command)?;
        let peak = self.daemon.map(|pid| memory_kib(pid, "VmHWM")).transpose()?;
        let memory_mib = peak.zip(before).map(|(peak, before)| (peak - before) / 1024.0);
        Ok(Pull { milliseconds, memory_mib })
    }

    pub(crate) fn load(&self, archive: &Path) -> Result<f64> {
        rustix::fs::sync();
        let mut command = self.words("load", &["--quiet", "--input"]);
        milliseconds(command.arg(archive))
    }

    /// Pushes to an empty registry.
    pub(crate) fn push(&self, name: &str) -> Result<f64> {
        let image = self.registries.target.image(name);
        self.registries.target.empty()?;
        quiet(&mut self.words("tag", &[&self.registries.source.image(name), &image]))?;
        rustix::fs::sync();
        let taken = milliseconds(&mut self.words("push", &["--quiet", &image]))?;
        quiet(&mut self.words("rmi", &[&image]))?;
        Ok(taken)
    }

    /// Removes an image: how long the command takes, and how long until all is deleted.
    pub(crate) fn remove(&self, name: &str) -> Result<(f64, f64)> {
        rustix::fs::sync();
        let start = Instant::now();
        let command = milliseconds(&mut self.words("rmi", &[&self.registries.source.image(name)]))?;
        while self.is_deleting()? {
            if start.elapsed() > PATIENCE {
                bail!("the layers of {name} are still being deleted");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((command, in_milliseconds(start.elapsed())))
    }

    fn is_deleting(&self) -> Result<bool> {
        let Some(directory) = &self.removed else { return Ok(false) };
        let mut entries = fs::read_dir(directory).context("look at the snapshots")?;
        Ok(entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("removing-"))
        }))
    }
}

/// Makes the peak of a process's memory what it is now, which is returned in KiB.
fn reset_peak(pid: u32) -> Result<f64> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset a memory peak")?;
    memory_kib(pid, "VmRSS")
}

fn memory_kib(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("process {pid} has no {key}"))
}
