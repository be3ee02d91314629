//! The steps that bring a container up and down, each undone when a later one fails.
//!
//! ```text
//! launch                                        undone by
//!   record: endpoints to be                     (the record names them; start-up removes what a crash left)
//!   network namespace, links, ports             networks.release
//!   volumes present                             volumes.unmount
//!   bundle: config.json, rootfs/                remove the directory, last
//!   shim start, Create                          shim Delete + Shutdown, or the shim's `delete` command
//!   waiting attaches connected
//!   shim Start
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brig_shim_protocol::attach::AttachRequest;
use brig_shim_protocol::options::Options;
use brig_shim_protocol::types::Mount;
use brig_storage::SnapshotKey;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::requests::RemoveOptions;
use super::spec::{self, Namespace};
use super::{Shared, files, log_driver, runtime, shims, volumes};
use crate::blocking;
use crate::error::{Error, ErrorKind, Failures, Result};
use crate::failpoint;
use crate::metadata::{ContainerRecord, Write};
use crate::network::Joined;
use crate::shim_client::{Exit, Shim, ShimPlace};

/// Pause before a shim that dropped the connection is asked again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A running container's parts that live in this process.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) shim: Shim,
    pub(crate) pid: u32,
    /// Keeps published ports and the name server.
    pub(crate) _joined: Joined,
}

/// Connections that wait for the process.
pub(crate) type Attaches = Vec<(AttachRequest, oneshot::Sender<UnixStream>)>;

/// Where the shim of a container works.
pub(crate) fn place(shared: &Shared, id: &str) -> ShimPlace {
    let bundle = shared.config.state.join("containers").join(id);
    ShimPlace { program: shared.config.shim.clone(), bundle, id: id.to_owned() }
}

/// Brings a container up. On error nothing is left but the record.
pub(crate) async fn launch(
    shared: &Arc<Shared>,
    record: &mut ContainerRecord,
    attaches: Attaches,
) -> Result<Live> {
    shared.metadata.put_container(record, Write::Durable).await?;
    failpoint::hit("start-intended")?;
    let left = place(shared, &record.id);
    if left.bundle.join("config.json").exists() {
        // A teardown that failed.
        end_without_shim(shared, &left).await?;
    }
    let joined = match shared.networks.prepare(record).await {
        Ok(joined) => joined,
        Err(error) => {
            undo(shared, record, None).await;
            return Err(error);
        }
    };
    match launch_in(shared, record, &joined, attaches).await {
        Ok((shim, pid)) => Ok(Live { shim, pid, _joined: joined }),
        Err((error, shim)) => {
            drop(joined);
            undo(shared, record, shim).await;
            Err(error)
        }
    }
}

async fn undo(shared: &Arc<Shared>, record: &mut ContainerRecord, shim: Option<Shim>) {
    let live = shim.map(|shim| Live { shim, pid: 0, _joined: Joined::default() });
    match tear_down(shared, record, live).await {
        Ok(()) => drop_bundle(shared, &record.id).await,
        // The bundle says how to try again: the next start or the removal does.
        Err(error) => {
            tracing::warn!(container = %record.id, "undo a failed start: {}", error.report());
        }
    }
}

type Failed = (Error, Option<Shim>);

async fn launch_in(
    shared: &Arc<Shared>,
    record: &ContainerRecord,
    joined: &Joined,
    attaches: Attaches,
) -> Result<(Shim, u32), Failed> {
    let early = |error: Error| (error, None);
    let rootfs = prepare(shared, record, joined).await.map_err(early)?;
    let shim = place(shared, &record.id).start().await.map_err(early)?;
    failpoint::hit("shim-started").map_err(|error| (error, Some(shim.clone())))?;
    let late = |error: Error, shim: &Shim| (error, Some(shim.clone()));
    let options = shim_options(shared, record).map_err(|error| late(error, &shim))?;
    let terminal = record.config.tty.unwrap_or(false);
    if let Err(error) = shim.create(rootfs, terminal, &options).await {
        return Err(late(runtime_failed("create", error), &shim));
    }
    failpoint::hit("task-created").map_err(|error| late(error, &shim))?;
    for (request, stream) in attaches.into_iter().filter(|(_, stream)| !stream.is_closed()) {
        match shim.place().attach(&request).await {
            Ok((connection, _)) => drop(stream.send(connection)),
            Err(error) => return Err(late(error, &shim)),
        }
    }
    match shim.start("").await {
        Ok(pid) => {
            failpoint::hit("task-started").map_err(|error| late(error, &shim))?;
            Ok((shim, pid))
        }
        Err(error) => Err(late(runtime_failed("start", error), &shim)),
    }
}

/// Words that clients look for: they derive the exit codes 125, 126 and 127 from them.
fn runtime_failed(step: &str, error: Error) -> Error {
    let report = error.report();
    let kind = match start_failure(&report) {
        StartFailure::Other => error.kind(),
        _ => ErrorKind::InvalidInput,
    };
    let what = format!("failed to {step} task for container: OCI runtime {step} failed");
    Error::new(kind, what).with_source(error)
}

enum StartFailure {
    NotFound,
    NotExecutable,
    Other,
}

fn start_failure(report: &str) -> StartFailure {
    let has = |words: &[&str]| words.iter().any(|word| report.contains(word));
    if has(&["executable file not found", "no such file or directory"]) {
        StartFailure::NotFound
    } else if has(&["permission denied", "not a directory", "exec format error", "is a directory"])
    {
        StartFailure::NotExecutable
    } else {
        StartFailure::Other
    }
}

/// The exit code that inspect shows after a start that failed.
pub(crate) fn exit_code_of_failed_start(report: &str) -> i32 {
    if !report.contains("OCI runtime") {
        return 128;
    }
    match start_failure(&report.to_ascii_lowercase()) {
        StartFailure::NotFound => 127,
        StartFailure::NotExecutable => 126,
        StartFailure::Other => 128,
    }
}

/// Writes the bundle and gathers what the root file system is made of.
async fn prepare(
    shared: &Arc<Shared>,
    record: &ContainerRecord,
    joined: &Joined,
) -> Result<Vec<Mount>> {
    shared.images.restore_layers(record).await?;
    let pid = shared_namespace(shared, record.host_config.pid_mode.as_deref(), "pid")?;
    let ipc = shared_namespace(shared, record.host_config.ipc_mode.as_deref(), "ipc")?;
    let (shared, record) = (Arc::clone(shared), record.clone());
    let (network, hosts, resolv) =
        (joined.namespace.clone(), joined.hosts.clone(), joined.resolv_conf.clone());
    blocking::run(move || {
        let directory = shared.config.root.join("containers").join(&record.id);
        make_directory(&directory)?;
        let files = files::write(&directory, &record, &hosts, &resolv)?;
        let record = volumes::present(&shared, record)?;
        let user = super::resolve_user(&shared, &record)?;
        let input = spec::Input {
            record: &record,
            config: &shared.config,
            user: &user,
            network,
            pid,
            ipc,
            files: &files,
            cgroup_v2: shared.cgroup_v2,
        };
        let spec = spec::build(&input)?;
        write_bundle(&place(&shared, &record.id).bundle, &spec)?;
        failpoint::hit("bundle-written")?;
        let key = snapshot_key(&record.id)?;
        let mounts = shared.storage.snapshots().mounts(&key)?;
        Ok(mounts
            .into_iter()
            .map(|mount| Mount {
                r#type: mount.fstype,
                source: mount.source.display().to_string(),
                target: String::new(),
                options: mount.options,
            })
            .collect())
    })
    .await
}

/// `host`, `container:X`, or a namespace of its own.
fn shared_namespace(shared: &Shared, mode: Option<&str>, kind: &str) -> Result<Namespace> {
    match mode.unwrap_or_default() {
        "host" => Ok(Namespace::Host),
        mode => match mode.strip_prefix("container:") {
            None => Ok(Namespace::Private),
            Some(other) => {
                let view = shared.table.find(other)?.view();
                let state = &view.record.state;
                if !state.phase.is_alive() || state.pid == 0 {
                    return Err(Error::conflict(format!(
                        "cannot join {kind} namespace of container {other}: container {other} is not running"
                    )));
                }
                Ok(Namespace::Join(PathBuf::from(format!("/proc/{}/ns/{kind}", state.pid))))
            }
        },
    }
}

fn write_bundle(bundle: &Path, spec: &oci_spec::runtime::Spec) -> Result<()> {
    // What an earlier run left, such as its exit record, must not be taken for this run's.
    remove_bundle(bundle)?;
    make_directory(bundle)?;
    make_directory(&bundle.join("rootfs"))?;
    let json = serde_json::to_vec(spec)
        .map_err(|source| Error::invalid("encode the OCI configuration").with_source(source))?;
    let file = bundle.join("config.json");
    std::fs::write(&file, json)
        .map_err(|source| Error::io(format!("write {}", file.display()), source))
}

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::io(format!("make directory {}", path.display()), source))
}

/// Removes a bundle, unless the container's root file system is still mounted in it, as a runtime program needs it:
/// removing the files of a mount would remove the container's own.
fn remove_bundle(bundle: &Path) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    match std::fs::remove_dir(&rootfs) {
        Err(source) if source.kind() == std::io::ErrorKind::ResourceBusy => {
            Err(Error::io(format!("remove {}, which is mounted still", rootfs.display()), source))
        }
        _ => remove_directory(bundle),
    }
}

fn remove_directory(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}

/// The key of a container's writable layer.
pub(crate) fn snapshot_key(id: &str) -> Result<SnapshotKey> {
    SnapshotKey::parse(id).map_err(Error::from)
}

fn shim_options(shared: &Shared, record: &ContainerRecord) -> Result<Options> {
    let log = log_driver::parse(record, &shared.config)?;
    let name = record.host_config.runtime.as_deref().unwrap_or_default();
    let runtime = runtime::find(&shared.config, name)?.unwrap_or_default();
    Ok(Options {
        runtime_binary: runtime.path.display().to_string(),
        runtime_arguments: runtime.arguments,
        runtime_root: shared.config.state.join("runtime").display().to_string(),
        systemd_cgroup: shared.config.systemd_cgroup,
        log,
        open_stdin: record.config.open_stdin.unwrap_or(false),
        stdin_once: record.config.stdin_once.unwrap_or(false),
        ..Options::default()
    })
}

/// Waits until the container's process has ended, through lost connections and dead shims.
pub(crate) async fn wait_for_exit(mut shim: Shim) -> Exit {
    let place = shim.place().clone();
    let process = place.process().and_then(shims::watch);
    loop {
        let lost = tokio::select! {
            biased;
            answer = shim.wait("") => match answer {
                Ok(exit) => return exit,
                Err(error) => Some(error),
            },
            () = shims::ended(process.as_ref()) => None,
        };
        if let Some(exit) = place.exit_record() {
            return exit;
        }
        match (lost, place.connect().await) {
            (Some(error), Ok(again)) => {
                tracing::debug!(container = %place.id, "asked the shim again: {}", error.report());
                tokio::time::sleep(RECONNECT_PAUSE).await;
                shim = again;
            }
            _ => return exit_of_dead_shim(&place).await,
        }
    }
}

/// The shim died. Its container cannot be looked after any more: it is killed, and counts as killed.
pub(crate) async fn exit_of_dead_shim(place: &ShimPlace) -> Exit {
    tracing::error!(container = %place.id, "the shim died; cleaning up after it");
    if let Err(error) = place.delete().await {
        tracing::error!(container = %place.id, "clean up after the shim: {}", error.report());
    }
    place.exit_record().unwrap_or_else(|| Exit {
        code: 137,
        at: super::now(),
        error: "the container's shim died".into(),
        ..Exit::default()
    })
}

/// Takes down all that [`launch`] set up but the bundle, which holds the exit record and tells how to try again: that
/// goes by [`drop_bundle`] once the record in the metadata is written. Goes on past errors.
pub(crate) async fn tear_down(
    shared: &Arc<Shared>,
    record: &mut ContainerRecord,
    live: Option<Live>,
) -> Result<()> {
    let mut failures = Failures::default();
    let place = place(shared, &record.id);
    let shim = live.map(|live| live.shim);
    if let Some(shim) = shim {
        let deleted = shim.delete("").await;
        if let Err(error) = &deleted {
            tracing::debug!(container = %record.id, "delete through the shim: {}", error.report());
        }
        let known = !matches!(&deleted, Err(error) if error.kind() != ErrorKind::NotFound);
        // A shim forgets a container whose making failed, and what it could not undo of that is still there.
        let runtime = shared.config.state.join("runtime").join(&record.id);
        if !(known && !runtime.exists() && end_shim(&shim, &place).await) {
            failures.note(end_without_shim(shared, &place).await);
        }
    } else if place.bundle.join("config.json").exists() {
        failures.note(end_without_shim(shared, &place).await);
    }
    failures.note(failpoint::hit("task-deleted"));
    failures.note(shared.networks.release(record).await);
    failures.note(failpoint::hit("network-released"));
    let (again, left) = (Arc::clone(shared), record.clone());
    let cleaned = blocking::run(move || volumes::withdraw(&again, &left));
    failures.note(cleaned.await);
    failures.into_result(&format!("tear down container {}", record.id))
}

/// Asks a shim without a container to end, and waits for it: who removed a container finds no process of it. False when
/// it stays.
async fn end_shim(shim: &Shim, place: &ShimPlace) -> bool {
    let process = place.process();
    // The shim may end before its answer is read.
    let _ = shim.shutdown().await;
    let Some(process) = process else { return true };
    let process = shims::watch(process);
    tokio::time::timeout(shims::PATIENCE, shims::ended(process.as_ref())).await.is_ok()
}

/// Removes what the runtime has of a container to whose shim there is no connection, and that shim.
async fn end_without_shim(shared: &Arc<Shared>, place: &ShimPlace) -> Result<()> {
    for process in shims::list(&shared.config).await? {
        if process.container == place.id {
            process.kill().await?;
        }
    }
    place.delete().await
}

/// Removes what is left of a container whose record is lost: its shim, its processes and cgroup, its network namespace
/// and its bundle.
pub(crate) async fn remove_orphan(shared: &Arc<Shared>, id: &str) -> Result<()> {
    let place = place(shared, id);
    let (bundle, root) = (place.bundle.clone(), shared.config.state.join("runtime"));
    let config = Arc::clone(&shared.config);
    blocking::run(move || {
        make_directory(&bundle)?;
        // What the shim's `delete` goes by; one that the shim wrote itself says the same and more.
        let settings = bundle.join("shim.json");
        if !settings.exists() {
            let text = serde_json::json!({ "root": root, "systemd_cgroup": config.systemd_cgroup });
            std::fs::write(&settings, text.to_string())
                .map_err(|source| Error::io(format!("write {}", settings.display()), source))?;
        }
        Ok(())
    })
    .await?;
    end_without_shim(shared, &place).await?;
    shared.networks.remove_namespace(id).await?;
    drop_bundle(shared, id).await;
    Ok(())
}

/// Removes the bundle of a container that was torn down.
pub(crate) async fn drop_bundle(shared: &Arc<Shared>, id: &str) {
    let bundle = place(shared, id).bundle;
    if let Err(error) = blocking::run(move || remove_bundle(&bundle)).await {
        tracing::warn!(container = %id, "remove its bundle: {}", error.report());
    }
}

/// Removes all that a stopped container owns, its record last.
pub(crate) async fn remove(
    shared: &Arc<Shared>,
    record: &mut ContainerRecord,
    options: RemoveOptions,
) -> Result<()> {
    let mut failures = Failures::default();
    let left = place(shared, &record.id);
    if left.bundle.join("config.json").exists() {
        // A teardown that failed, or that a crash cut off.
        end_without_shim(shared, &left).await?;
    }
    failures.note(shared.networks.forget(record).await);
    let (again, id) = (Arc::clone(shared), record.id.clone());
    let removed = blocking::run(move || {
        let mut failures = Failures::default();
        let key = snapshot_key(&id)?;
        if again.storage.snapshots().exists(&key) {
            failures.note(again.storage.snapshots().remove(&key).map_err(Error::from));
        }
        failures.note(failpoint::hit("snapshot-removed"));
        failures.note(remove_bundle(&place(&again, &id).bundle));
        failures.note(remove_directory(&again.config.root.join("containers").join(&id)));
        failures.into_result("remove the container's files")
    });
    failures.note(removed.await);
    shared.images.sweep_behind();
    if options.volumes {
        for mount in record.mounts.iter().filter(|mount| mount.anonymous) {
            let name = mount.name.as_deref().unwrap_or_default();
            if !shared.volumes.is_used_by_others(name, &record.id) {
                match shared.volumes.destroy(name).await {
                    // Not made yet, or removed before a crash.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    destroyed => drop(failures.note(destroyed)),
                }
            }
        }
    }
    failures.into_result(&format!("remove container {}", record.name))?;
    shared.execs.forget_container(&record.id);
    shared.metadata.remove_container(&record.id).await?;
    failpoint::hit("row-deleted")
}
