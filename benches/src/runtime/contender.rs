//! Who is measured: OCI runtimes by their command line, and the floor.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::bundle::Bundle;
use super::hierarchies::Hierarchies;
use crate::sample::in_milliseconds;

/// How long a container may take to reach its program.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);

/// A runtime, or the floor.
#[derive(Debug)]
pub(super) struct Contender {
    /// As the tables show it.
    pub(super) name: String,
    program: PathBuf,
    kind: Kind,
    containers: AtomicUsize,
}

#[derive(Debug)]
enum Kind {
    /// With its `--root`.
    Runtime(PathBuf),
    Floor(Hierarchies),
}

impl Contender {
    /// An OCI runtime with a directory of its own.
    pub(super) fn runtime(name: &str, program: &Path, directory: &Path) -> Self {
        Self::new(name, program, Kind::Runtime(directory.to_owned()))
    }

    /// The C program.
    pub(super) fn floor(program: &Path, hierarchies: Hierarchies) -> Self {
        Self::new("floor (C)", program, Kind::Floor(hierarchies))
    }

    fn new(name: &str, program: &Path, kind: Kind) -> Self {
        let containers = AtomicUsize::new(0);
        Self { name: name.to_owned(), program: program.to_owned(), kind, containers }
    }

    pub(super) fn is_floor(&self) -> bool {
        matches!(self.kind, Kind::Floor(_))
    }

    /// An id that no container had yet.
    pub(super) fn new_id(&self) -> String {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let name = self.name.split(' ').next().unwrap_or_default();
        format!("brig-bench-{}-{name}-{number}", std::process::id())
    }

    /// Runs `true` in a container, in the foreground.
    pub(super) fn run(&self, bundle: &Bundle, id: &str) -> Command {
        self.run_named(bundle, "true", &["/bin/true"], id, None)
    }

    /// As [`Contender::run`], with the configuration called `limited`, whose limit in bytes the floor is told too.
    pub(super) fn run_limited(&self, bundle: &Bundle, id: &str, memory: u64) -> Command {
        self.run_named(bundle, "limited", &["/bin/true"], id, Some(memory))
    }

    fn run_named(
        &self,
        bundle: &Bundle,
        name: &str,
        words: &[&str],
        id: &str,
        memory: Option<u64>,
    ) -> Command {
        match &self.kind {
            Kind::Runtime(_) => {
                let mut command = self.command(&["run", "--bundle"]);
                command.arg(bundle.named(name)).arg(id);
                command
            }
            Kind::Floor(hierarchies) => {
                let mut command = Command::new(&self.program);
                let memory = memory.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
                command.arg("run").arg(bundle.rootfs()).arg(id).arg(memory);
                command.args(hierarchies.words()).arg("--").args(words);
                command
            }
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Kind::Runtime(root) = &self.kind {
            command.arg("--root").arg(root);
        }
        command.args(words);
        command
    }

    /// Whether it runs here at all.
    pub(super) fn probe(&self, bundle: &Bundle) -> Result<()> {
        let id = self.new_id();
        let done = finish(&mut self.run(bundle, &id));
        if done.is_err() {
            self.discard(&id);
        }
        done
    }

    /// Creates, starts and deletes a container; answers how many milliseconds that took, with the wait for its end.
    pub(super) fn lifecycle(&self, bundle: &Bundle) -> Result<f64> {
        let id = self.new_id();
        let start = Instant::now();
        let init = self.create_and_start(bundle, "true", &id)?;
        waitpid(Some(init), WaitOptions::empty()).context("wait for the container's end")?;
        finish(&mut self.command(&["delete", &id]))?;
        Ok(in_milliseconds(start.elapsed()))
    }

    /// Answers the number of its first process, which is this process's child by then.
    fn create_and_start(&self, bundle: &Bundle, name: &str, id: &str) -> Result<Pid> {
        let file = bundle.named(name).join(format!("{id}.pid"));
        let mut create = self.command(&["create", "--bundle"]);
        finish(create.arg(bundle.named(name)).arg("--pid-file").arg(&file).arg(id))?;
        finish(&mut self.command(&["start", id]))?;
        let text = fs::read_to_string(&file).context("read the pid file")?;
        fs::remove_file(&file).context("remove the pid file")?;
        parse_pid(&text).with_context(|| format!("{}: a pid file with {text:?}", self.name))
    }

    /// A container that sleeps until the value is dropped.
    pub(super) fn sleep(&self, bundle: &Bundle) -> Result<Running<'_>> {
        let id = self.new_id();
        if !self.is_floor() {
            let init = self.create_and_start(bundle, "sleep", &id)?;
            return Ok(Running { contender: self, id, init, floor: None });
        }
        let words = ["/bin/sleep", "100000"];
        let mut command = self.run_named(bundle, "sleep", &words, &id, None);
        let mut floor = command.spawn().context("start the floor")?;
        match program_of(&mut floor) {
            Ok(init) => Ok(Running { contender: self, id, init, floor: Some(floor) }),
            Err(error) => {
                let _ = floor.kill();
                let _ = floor.wait();
                Err(error)
            }
        }
    }

    /// Removes what is left of a container, whatever that is.
    pub(super) fn discard(&self, id: &str) {
        if !self.is_floor() {
            let _ = finish(&mut self.command(&["delete", "--force", id]));
        }
        support::cgroups::remove(id);
    }
}

/// A container that sleeps.
#[derive(Debug)]
pub(super) struct Running<'a> {
    contender: &'a Contender,
    id: String,
    init: Pid,
    /// The floor itself, which waits for it.
    floor: Option<Child>,
}

impl Running<'_> {
    /// The contender's name.
    pub(super) fn name(&self) -> &str {
        &self.contender.name
    }

    /// Runs a further process in it, in the foreground.
    pub(super) fn exec(&self, words: &[&str]) -> Command {
        let mut command = match &self.contender.kind {
            Kind::Runtime(_) => self.contender.command(&["exec", &self.id]),
            Kind::Floor(hierarchies) => {
                let mut command = self.contender.command(&["exec"]);
                command.arg(self.init.as_raw_nonzero().to_string()).arg(&self.id);
                command.args(hierarchies.words()).arg("--");
                command
            }
        };
        command.args(words);
        command
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = kill_process(self.init, Signal::KILL);
        match &mut self.floor {
            Some(floor) => drop(floor.wait()),
            None => drop(waitpid(Some(self.init), WaitOptions::empty())),
        }
        self.contender.discard(&self.id);
    }
}

/// Waits until the floor's child has become the container's program; answers its number.
fn program_of(floor: &mut Child) -> Result<Pid> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = floor.try_wait().context("look at the floor")? {
            bail!("the floor ended: {status}");
        }
        let number = floor.id();
        let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children"));
        if let Some(pid) = children.ok().as_deref().and_then(parse_pid)
            && fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()))
                .is_ok_and(|name| name.trim() == "sleep")
        {
            return Ok(pid);
        }
        std::thread::sleep(PAUSE);
    }
    bail!("the floor did not reach its program")
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.trim().parse().ok().and_then(Pid::from_raw)
}

/// Runs a command to its end. Its errors go to a file, since a container that it leaves behind would keep a pipe open.
fn finish(command: &mut Command) -> Result<()> {
    let mut errors: File = tempfile::tempfile().context("make a file for errors")?;
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.try_clone().context("share a file")?)
        .status()
        .with_context(|| format!("start {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    errors.rewind().and_then(|()| errors.read_to_string(&mut text)).context("read its errors")?;
    bail!("{}: {status}: {}", command.get_program().display(), text.trim())
}
