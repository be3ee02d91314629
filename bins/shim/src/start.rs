//! The commands: `start`, `delete` and `-v`.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use brig_shim_protocol::attach;
use brig_shim_protocol::bootstrap::{self, BootstrapParams};
use brig_shim_protocol::bundle;
use brig_shim_protocol::task::DeleteResponse;
use brig_shim_protocol::{ExitRecord, MemoryAtExit, Timestamp};
use prost::Message;
use rustix::fs::Mode;
use sha2::{Digest, Sha256};

use crate::arguments::Arguments;
use crate::group;
use crate::identity::{BRIG_NAMESPACE, Containerd, Identity};
use crate::runtime::{self, Settings};
use crate::server::Shim;

/// Where containerd's shims keep their sockets.
const CONTAINERD_SOCKETS: &str = "/run/containerd/s";
/// Starts over when the directory of the sockets is removed while it is being locked.
const LOCK_TRIES: u32 = 100;

/// What the environment says; only this program reads it.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// containerd's ttrpc address (`TTRPC_ADDRESS`).
    pub(crate) ttrpc_address: String,
    /// The newest bootstrap answer that containerd understands (`MAX_SHIM_VERSION`); older ones do not say.
    pub(crate) max_shim_version: Option<u32>,
}

/// Exit status of a process that nobody saw end: as if it had been killed, which `delete` does.
const KILLED: u32 = 128 + 9;

/// Starts a shim in the background and prints how to reach it.
pub(crate) fn start(arguments: Arguments, environment: Environment) -> Result<()> {
    let bundle = enter_bundle(&arguments)?;
    let under_brigd = arguments.namespace == BRIG_NAMESPACE && environment.ttrpc_address.is_empty();
    let containerd = (!under_brigd).then(|| Containerd {
        ttrpc_address: environment.ttrpc_address,
        grpc_address: arguments.address.clone(),
        publish_binary: arguments.publish_binary.clone(),
    });
    // Sockets are for root alone, wherever they are.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let socket = if under_brigd {
        bundle.join(bootstrap::SOCKET_NAME)
    } else {
        containerd_socket(&arguments, &bundle)?
    };
    let address = format!("unix://{}", socket.display());
    // Containers of one pod may be started at the same moment, and one shim is to come of it.
    let _lock = containerd.as_ref().map(|_| lock_directory_of(&socket)).transpose()?;
    if containerd.is_some() && connects(&socket) {
        // The shim of the container's pod serves this one too.
        rustix::process::umask(umask);
        let identity = Identity { containerd, ..Identity::default() };
        return print_address(&identity, environment.max_shim_version, &address);
    }
    let task_listener = bind(&socket)?;
    let stdio_listener =
        if under_brigd { Some(bind(&bundle.join(attach::SOCKET_NAME))?) } else { None };
    rustix::process::umask(umask);
    let identity =
        Identity { namespace: arguments.namespace, bundle, debug: arguments.debug, containerd };
    let mut keep = vec![OwnedFd::from(task_listener)];
    keep.extend(stdio_listener.map(OwnedFd::from));
    brig_failpoint::hit("shim-bound").context("pass shim-bound")?;
    let child_identity = identity.clone();
    let pid = brig_linux::fork::fork(keep, move |keep| serve(child_identity, &socket, keep))
        .context("start the shim in the background")?;
    brig_failpoint::hit("shim-forked").context("pass shim-forked")?;
    fs::write("shim.pid", pid.as_raw_nonzero().to_string()).context("write shim.pid")?;
    print_address(&identity, environment.max_shim_version, &address)
}

/// containerd up to 1.6 wants the bare address, 1.7 answers of version 2, later ones version 3.
fn print_address(identity: &Identity, max_version: Option<u32>, address: &str) -> Result<()> {
    let version = match (&identity.containerd, max_version) {
        (None, _) => 3,
        (Some(_), Some(version)) => version.clamp(2, 3),
        (Some(_), None) => {
            fs::write("address", address).context("write the address file")?;
            return print(address.as_bytes());
        }
    };
    let params = BootstrapParams::ttrpc(version, address.to_owned());
    print(&serde_json::to_vec(&params)?)
}

/// The background shim's life.
fn serve(identity: Identity, socket: &Path, keep: Vec<OwnedFd>) -> i32 {
    let mut keep = keep.into_iter();
    let (Some(task_listener), stdio_listener) = (keep.next(), keep.next()) else { return 1 };
    let attachable = stdio_listener.is_some();
    let bundle = identity.bundle.clone();
    let served = detach(&identity)
        .and_then(|()| Shim::new(identity, task_listener, stdio_listener))
        .and_then(|mut shim| shim.run());
    if let Err(error) = &served {
        let mut diagnostics = crate::diagnostics::Diagnostics::open(false);
        diagnostics.warn(format_args!("the shim ends: {error:#}"));
    }
    let _gone = fs::remove_file(socket);
    if attachable {
        let _gone = fs::remove_file(bundle.join(attach::SOCKET_NAME));
    }
    i32::from(served.is_err())
}

/// Leaves the starter's session and streams; takes in the orphans of what the shim starts.
fn detach(identity: &Identity) -> Result<()> {
    rustix::process::setsid().context("start a session")?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become a subreaper")?;
    if identity.containerd.is_some() {
        raise_oom_score();
    }
    Ok(())
}

/// One more than containerd's own, so that the kernel prefers a shim to containerd; raising it is always allowed.
fn raise_oom_score() {
    const PATH: &str = "/proc/self/oom_score_adj";
    let current = fs::read_to_string(PATH).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(current) = current {
        let _best_effort = fs::write(PATH, (current + 1).min(1000).to_string());
    }
}

/// Removes what a dead shim left and prints how the container ended.
pub(crate) fn delete(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let bundle = enter_bundle(arguments)?;
    let under_brigd = arguments.namespace == BRIG_NAMESPACE && environment.ttrpc_address.is_empty();
    let identity = Identity {
        namespace: arguments.namespace.clone(),
        bundle: bundle.clone(),
        debug: arguments.debug,
        containerd: (!under_brigd).then(Containerd::default),
    };
    if let Some(newer) = bundle::version(&bundle).filter(|&version| version > bundle::VERSION) {
        bail!(
            "a newer shim keeps {} (version {newer}, this one knows {}): nothing was touched; use the newer shim",
            bundle.display(),
            bundle::VERSION
        );
    }
    let mut settings = read_settings(&bundle)?.unwrap_or_else(|| Settings {
        root: identity.default_runtime_root(),
        ..Settings::default()
    });
    settings.bundle.clone_from(&bundle);
    let (reply, _) = runtime::after_exit(&settings, &arguments.id, true);
    let memory = reply.memory.map(MemoryAtExit::from);
    let (reply, _) = runtime::delete(&settings, &arguments.id);
    if reply.code != 0 {
        bail!("remove container {}: {}", arguments.id, reply.message);
    }
    for name in [bootstrap::SOCKET_NAME, attach::SOCKET_NAME] {
        let _absent = fs::remove_file(bundle.join(name));
    }
    if !under_brigd {
        let socket = containerd_socket(arguments, &bundle)?;
        // The others of its pod may have a shim that lives. One of its own that was killed may take a moment to go.
        if group::of(&bundle, &arguments.id)? == arguments.id || !connects(&socket) {
            let _absent = fs::remove_file(socket);
        }
    }
    let record = match ExitRecord::read(&bundle) {
        Ok(record) => record,
        Err(_none_was_written) => {
            let record = died_with_its_shim(memory);
            record.write(&bundle)?;
            record
        }
    };
    let response = DeleteResponse {
        pid: record.pid,
        exit_status: record.exit_code,
        exited_at: Some(record.exited_at),
    };
    print(&response.encode_to_vec())
}

fn died_with_its_shim(memory: Option<MemoryAtExit>) -> ExitRecord {
    ExitRecord {
        version: ExitRecord::VERSION,
        exit_code: KILLED,
        signal: Some(9),
        oom_killed: memory.as_ref().is_some_and(|memory| memory.oom_kills > 0),
        exited_at: Timestamp::now(),
        error: Some("the container's shim died; what was left of the container was killed".into()),
        memory,
        ..ExitRecord::default()
    }
}

fn read_settings(bundle: &Path) -> Result<Option<Settings>> {
    match fs::read(bundle.join(Settings::FILE_NAME)) {
        Ok(bytes) => {
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).with_context(|| format!("parse {}", Settings::FILE_NAME))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", Settings::FILE_NAME)),
    }
}

/// Prints the version, as containerd's shims do.
pub(crate) fn version() -> Result<()> {
    let text = format!("containerd-shim-brig-v1:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
    print(text.as_bytes())
}

pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("write to standard output")
}

/// Makes the bundle the working directory; answers its absolute path.
fn enter_bundle(arguments: &Arguments) -> Result<PathBuf> {
    if arguments.id.is_empty() || arguments.id.contains('/') {
        bail!("flag -id needs a container id");
    }
    if let Some(bundle) = &arguments.bundle {
        std::env::set_current_dir(bundle)
            .with_context(|| format!("enter bundle {}", bundle.display()))?;
    }
    std::env::current_dir().context("find the working directory")
}

fn containerd_socket(arguments: &Arguments, bundle: &Path) -> Result<PathBuf> {
    let group = group::of(bundle, &arguments.id)?;
    let directory = Path::new(CONTAINERD_SOCKETS);
    let mut hash = Sha256::new();
    for part in [&arguments.address, &arguments.namespace, &group] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(directory.join(name))
}

/// Listens on a socket; one that a dead shim left is replaced.
fn bind(path: &Path) -> Result<UnixListener> {
    let context = || format!("listen on {}", path.display());
    match brig_linux::fd::listen_unix(path) {
        Err(error) if error.raw_os_error() == Some(ADDRESS_IN_USE) => {
            if connects(path) {
                bail!("a shim listens on {} already", path.display());
            }
            fs::remove_file(path).with_context(context)?;
            brig_linux::fd::listen_unix(path).with_context(context)
        }
        answer => answer.with_context(context),
    }
}

/// Makes the directory of a socket, and holds it against other starters until it is dropped.
fn lock_directory_of(socket: &Path) -> Result<fs::File> {
    let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
    for _ in 0..LOCK_TRIES {
        match try_lock(directory) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => {}
            // It went, or what it is in, between two of the steps.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("lock {}", directory.display()));
            }
        }
    }
    bail!(
        "lock {}: it was removed {LOCK_TRIES} times meanwhile; find out by whom",
        directory.display()
    )
}

/// Locks a directory; `None` when what was locked is no longer what has the name. Whoever removes it while it is empty
/// would otherwise leave this starter alone in a directory that nobody finds.
fn try_lock(directory: &Path) -> io::Result<Option<fs::File>> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
    let file = fs::File::open(directory)?;
    file.lock()?;
    let (locked, named) = (file.metadata()?, fs::metadata(directory)?);
    let is_same = (locked.dev(), locked.ino()) == (named.dev(), named.ino());
    Ok(is_same.then_some(file))
}

fn connects(path: &Path) -> bool {
    let connected: Result<UnixStream, _> = brig_linux::fd::connect_unix(path);
    connected.is_ok()
}

const ADDRESS_IN_USE: i32 = 98;

impl Environment {
    /// Reads variables through `get`.
    pub(crate) fn read(get: impl Fn(&OsStr) -> Option<std::ffi::OsString>) -> Self {
        let text = |name: &str| get(OsStr::new(name)).and_then(|value| value.into_string().ok());
        Self {
            ttrpc_address: text("TTRPC_ADDRESS").unwrap_or_default(),
            max_shim_version: text("MAX_SHIM_VERSION").and_then(|value| value.parse().ok()),
        }
    }
}
