//! One engine as the benchmark of images sees it: its client, the registries it can reach, and its disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
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
    store: Store,
    pub(crate) registries: Rc<Registries>,
}

/// Where an engine keeps images.
struct Store {
    /// Everything.
    whole: PathBuf,
    /// The unpacked layers.
    unpacked: PathBuf,
}

impl Store {
    fn new(whole: PathBuf, unpacked: &str) -> Self {
        Self { unpacked: whole.join(unpacked), whole }
    }

    /// Brings the filesystem to disk. All stores are on the same one.
    fn settle(&self) -> Result<()> {
        let place = self.whole.parent().unwrap_or(&self.whole);
        let directory = fs::File::open(place).context("open the place of an engine")?;
        rustix::fs::syncfs(&directory).context("sync the filesystem of an engine")
    }
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
        let store = Store::new(engine.path("root"), "storage/snapshots");
        let mut peer = Self::new(name, client, store, &Rc::new(registries));
        peer.daemon = Some(engine.daemon_pid());
        peer.removed = Some(engine.path("root/storage/snapshots"));
        peer
    }

    pub(crate) fn docker(docker: &'a Docker, registries: &Rc<Registries>) -> Self {
        let client = Box::new(|words: &[&str]| docker.command(words));
        let store = Store::new(docker.directory().join("data"), "overlay2");
        let mut peer = Self::new("docker", client, store, registries);
        peer.daemon = Some(docker.daemon_pid());
        peer
    }

    pub(crate) fn podman(podman: &'a Podman, registries: &Rc<Registries>) -> Self {
        let client = Box::new(|words: &[&str]| podman.command(words));
        let store = Store::new(podman.directory().join("root"), "overlay");
        let mut peer = Self::new("podman", client, store, registries);
        peer.plain = &["--tls-verify=false"];
        peer
    }

    fn new(name: &str, client: Client<'a>, store: Store, registries: &Rc<Registries>) -> Self {
        let (name, registries) = (name.to_owned(), Rc::clone(registries));
        Self { name, client, plain: &[], daemon: None, removed: None, store, registries }
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
        self.store.settle()?;
        let mut command = self.words("pull", &["--quiet", &self.registries.source.image(name)]);
        let milliseconds = milliseconds(&mut command)?;
        let peak = self.daemon.map(|pid| memory_kib(pid, "VmHWM")).transpose()?;
        let memory_mib = peak.zip(before).map(|(peak, before)| (peak - before) / 1024.0);
        Ok(Pull { milliseconds, memory_mib })
    }

    /// What the engine has on disk beside unpacked layers, in MiB.
    pub(crate) fn overhead(&self) -> Result<f64> {
        self.store.settle()?;
        let taken = |path: &Path| {
            allocated(path).with_context(|| format!("measure what {} takes", path.display()))
        };
        let beside = taken(&self.store.whole)?.saturating_sub(taken(&self.store.unpacked)?);
        Ok(in_mebibytes(beside))
    }

    pub(crate) fn load(&self, archive: &Path) -> Result<f64> {
        self.store.settle()?;
        let mut command = self.words("load", &["--quiet", "--input"]);
        milliseconds(command.arg(archive))
    }

    /// Pushes to an empty registry.
    pub(crate) fn push(&self, name: &str) -> Result<f64> {
        let image = self.registries.target.image(name);
        self.registries.target.empty()?;
        quiet(&mut self.words("tag", &[&self.registries.source.image(name), &image]))?;
        self.store.settle()?;
        let taken = milliseconds(&mut self.words("push", &["--quiet", &image]))?;
        quiet(&mut self.words("rmi", &[&image]))?;
        Ok(taken)
    }

    /// Removes an image: how long the command takes, and how long until all is deleted.
    pub(crate) fn remove(&self, name: &str) -> Result<(f64, f64)> {
        self.store.settle()?;
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

/// Bytes that a directory takes with all that is below it, but for what is mounted there. What goes away meanwhile (an
/// engine tidies up when it likes) takes nothing.
fn allocated(directory: &Path) -> io::Result<u64> {
    let here = directory.symlink_metadata()?;
    let mut bytes = here.blocks() * 512;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let taken = entry.metadata().and_then(|metadata| match metadata.is_dir() {
            _ if metadata.dev() != here.dev() => Ok(0),
            true => allocated(&entry.path()),
            false => Ok(metadata.blocks() * 512),
        });
        match taken {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            taken => bytes += taken?,
        }
    }
    Ok(bytes)
}

/// A size as the tables show it.
pub(crate) fn in_mebibytes(bytes: u64) -> f64 {
    // Exact far beyond any disk that is measured here.
    let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    f64::from(kibibytes) / 1024.0
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
