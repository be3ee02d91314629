//! Starting brigd on demand, so that a fresh machine needs no set-up.
//!
//! brigd is given the write end of a pipe as its standard output and told to announce itself there (`--ready-fd 1`): it
//! writes a byte when it listens, or closes the pipe by ending, so nothing here polls.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Where a brigd that we start logs.
const LOG: &str = "/var/log/brigd.log";

/// How long brigd may take to adopt what it finds and listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Starts brigd in the background and waits until it listens.
pub(crate) async fn start() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this user may not start it: use sudo, or have root run `systemctl start brigd` or `brigd`"
        );
    }
    let program = find()?;
    let (reader, writer) = rustix::pipe::pipe().context("make a pipe")?;
    spawn(&program, writer)?;
    let ready = tokio::task::spawn_blocking(move || {
        let mut byte = [0];
        matches!(File::from(reader).read(&mut byte), Ok(1))
    });
    match tokio::time::timeout(START_LIMIT, ready).await {
        Ok(Ok(true)) => Ok(()),
        Ok(_) => bail!("{} ended: {}", program.display(), last_log_line()),
        Err(_) => bail!("{} does not listen after {START_LIMIT:?}: see {LOG}", program.display()),
    }
}

/// brigd stands beside brig, or in PATH.
fn find() -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("brigd")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|directory| directory.join("brigd")))
        .find(|candidate| candidate.is_file())
        .context("brigd is neither beside brig nor in PATH: install it, or start it yourself and give --host")
}

fn spawn(program: &Path, ready: OwnedFd) -> Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(LOG)
        .with_context(|| format!("open {LOG}"))?;
    let mut command = Command::new(program);
    // The command goes out of scope with its copy of the pipe, so that the end of brigd closes it.
    command
        .args(["--ready-fd", "1"])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(ready)
        .stderr(log);
    command.spawn().with_context(|| format!("start {}", program.display()))?;
    Ok(())
}

fn last_log_line() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    log.lines().last().unwrap_or("it logged nothing").to_owned()
}
