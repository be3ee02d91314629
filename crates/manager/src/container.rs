//! Containers: one task owns each, [`Containers`] is the door.
//!
//! ```text
//! create ──▶ record, snapshot ──▶ driver (a task) ──▶ lifecycle (network, bundle, shim)
//! calls that change state ──▶ driver          calls that only look ──▶ table, shim, log files, trees
//! ```

mod adopt;
mod archive;
mod attach;
mod boot;
mod commit;
mod create;
mod death;
mod descendants;
mod driver;
mod exec;
mod files;
mod health;
mod inspect;
mod lifecycle;
mod list;
mod log_driver;
mod logs;
mod prune;
mod requests;
mod restart;
pub(crate) mod runtime;
mod seccomp_profile;
pub(crate) mod shims;
mod signal;
mod spec;
mod state;
mod stats;
mod table;
mod top;
mod update;
mod user;
mod volumes;

use std::collections::HashMap;
use std::sync::Arc;

use brig_engine_api::restart::Restarting;
use brig_engine_api::types::{InspectedContainer, ListedContainer};
use brig_storage::{Attachment as TreeAttachment, Storage, Tree};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use commit::CommitRequest;
pub use requests::{
    ArchivePut, AttachRequest, CreateContainer, ExecStart, ExecStarted, ListContainers,
    LogsRequest, Outcome, PathStat, RemoveOptions, StatsRequest, StopOptions, TerminalSize,
    WaitCondition, WaitFuture,
};

pub(crate) use create::shortest_path;
pub(crate) use death::{Account, DeathRecord, SentSignal};
pub(crate) use driver::Request;
pub(crate) use files::{Hosts, ResolvConf};
pub(crate) use lifecycle::{make_directory, remove_orphan, snapshot_key};
pub(crate) use list::parse_until;
pub(crate) use signal::parse as parse_signal;
pub(crate) use spec::Namespace;
pub(crate) use state::Phase;
pub(crate) use table::{Table, View};
pub(crate) use user::resolve as resolve_user_of;

use crate::blocking;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;
use crate::filters::Filters;
use crate::image::Images;
use crate::metadata::{ContainerRecord, Metadata, MountKind, Write};
use crate::models::{
    ContainerCreateResponse, ContainerPruneResponse, ContainerTopResponse, ContainerUpdateBody,
    ContainerUpdateResponse, ContainerWaitExitError, ContainerWaitResponse, EventMessageTypeEnum,
    ExecConfig, ExecInspectResponse, FilesystemChange,
};
use crate::name;
use crate::network::Networks;
use crate::stream::{AttachStream, ByteStream, LogStream, StatsStream};
use crate::volume::Volumes;

/// What all containers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) metadata: Metadata,
    pub(crate) events: Events,
    pub(crate) storage: Arc<Storage>,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) table: Table,
    pub(crate) execs: exec::Execs,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the engine closes: tasks end, containers stay.
    pub(crate) closing: CancellationToken,
    /// The host has only the unified cgroup hierarchy.
    pub(crate) cgroup_v2: bool,
}

/// All containers of the engine.
#[derive(Debug, Clone)]
pub struct Containers(Arc<Shared>);

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Takes up the containers of the records: adopts those whose shims run, learns the end of the others.
    pub(crate) async fn adopt(&self, records: Vec<ContainerRecord>) -> Result<()> {
        adopt::adopt(&self.0, records).await
    }

    /// Starts what the restart policies want started when the engine comes up.
    pub(crate) async fn start_by_policy(&self) {
        boot::start_by_policy(&self.0).await;
    }

    /// Ends the tasks; containers keep running.
    pub(crate) async fn close(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    ///
    /// The image does not exist, the name is taken, or the request asks for something wrong or not built.
    pub async fn create(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        create::create(&self.0, request).await
    }

    /// Starts a container that does not run.
    ///
    /// # Errors
    ///
    /// It does not exist, or could not be started; the message says why.
    pub async fn start(&self, container: &str) -> Result<Outcome> {
        self.0.table.find(container)?.ask(|reply| Request::Start { reply }).await
    }

    /// Asks a container to end and kills it when its time is up.
    ///
    /// # Errors
    ///
    /// It does not exist, or does not end even when killed.
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<Outcome> {
        self.0.table.find(container)?.ask(|reply| Request::Stop { options, reply }).await
    }

    /// Stops and starts.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<()> {
        self.0
            .table
            .find(container)?
            .ask(|reply| Request::Restart { options, reply })
            .await
            .map(drop)
    }

    /// Sends a signal, `KILL` by default.
    ///
    /// # Errors
    ///
    /// It does not run, or there is no such signal.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.map(str::to_owned);
        self.0.table.find(container)?.ask(|reply| Request::Kill { signal, reply }).await
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    ///
    /// It does not run, or is frozen already.
    pub async fn pause(&self, container: &str) -> Result<()> {
        self.0.table.find(container)?.ask(|reply| Request::Pause { reply }).await
    }

    /// Thaws them.
    ///
    /// # Errors
    ///
    /// It is not frozen.
    pub async fn unpause(&self, container: &str) -> Result<()> {
        self.0.table.find(container)?.ask(|reply| Request::Unpause { reply }).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    ///
    /// The name is malformed or taken.
    pub async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let name = name::parse_container(name)?.to_owned();
        let handle = self.0.table.find(container)?;
        let view = handle.view();
        if view.record.name == name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.0.table.reserve(&name, &view.record.id)?;
        let renamed = handle.ask(|reply| Request::Rename { name: name.clone(), reply }).await;
        if renamed.is_err() {
            self.0.table.release(&name);
        }
        renamed
    }

    /// Removes it and all it owns.
    ///
    /// # Errors
    ///
    /// It runs and `force` was not given, or something could not be removed.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        self.0.table.find(container)?.ask(|reply| Request::Remove { options, reply }).await
    }

    /// Registers a wait; the future it returns yields the exit status.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn wait(&self, container: &str, condition: WaitCondition) -> Result<WaitFuture> {
        let mut views = self.0.table.find(container)?.watch();
        let exits = views.borrow_and_update().record.state.exits;
        Ok(Box::pin(async move {
            let done = |view: &Arc<View>| match condition {
                WaitCondition::NotRunning => view.removed || !is_busy(&view.record),
                WaitCondition::NextExit => view.removed || view.record.state.exits > exits,
                WaitCondition::Removed => view.removed || view.record.state.phase == Phase::Dead,
            };
            let response = match views.wait_for(done).await {
                Ok(view) => wait_response(&view.record),
                Err(_) => return Err(Error::new(ErrorKind::Io, "the engine closes")),
            };
            Ok(response)
        }))
    }

    /// Lists containers, newest first.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed.
    pub async fn list(&self, request: ListContainers) -> Result<Vec<ListedContainer>> {
        list::list(&self.0, request).await
    }

    /// Everything about one container.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn inspect(&self, container: &str, size: bool) -> Result<InspectedContainer> {
        inspect::inspect(&self.0, container, size).await
    }

    /// Its processes.
    ///
    /// # Errors
    ///
    /// It does not run, or the arguments ask for columns that are not built.
    pub async fn top(
        &self,
        container: &str,
        ps_arguments: Option<&str>,
    ) -> Result<ContainerTopResponse> {
        top::top(&self.0, container, ps_arguments).await
    }

    /// Its log.
    ///
    /// # Errors
    ///
    /// It keeps none.
    pub async fn logs(&self, container: &str, request: LogsRequest) -> Result<LogStream> {
        logs::logs(&self.0, container, request).await
    }

    /// The streams of its first process, from its start on if it has not started yet.
    ///
    /// # Errors
    ///
    /// It is paused or going.
    pub async fn attach(&self, container: &str, request: AttachRequest) -> Result<AttachStream> {
        attach::attach(&self.0, container, request).await
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn resize(&self, container: &str, size: TerminalSize) -> Result<()> {
        self.0.table.find(container)?.shim()?.resize("", size.width, size.height).await
    }

    /// Its resource use.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn stats(&self, container: &str, request: StatsRequest) -> Result<StatsStream> {
        stats::stats(&self.0, container, request).await
    }

    /// Changes limits and the restart policy.
    ///
    /// # Errors
    ///
    /// The limits are impossible, or the kernel refuses them.
    pub async fn update(
        &self,
        container: &str,
        update: Restarting<ContainerUpdateBody>,
    ) -> Result<ContainerUpdateResponse> {
        let update = Box::new(update);
        self.0.table.find(container)?.ask(|reply| Request::Update { update, reply }).await?;
        Ok(ContainerUpdateResponse { warnings: None })
    }

    /// Removes all that do not run.
    ///
    /// # Errors
    ///
    /// A filter is unknown or malformed. Containers that cannot be removed are left.
    pub async fn prune(&self, filters: Filters) -> Result<ContainerPruneResponse> {
        prune::prune(self, &filters).await
    }

    /// What it changed in its file system.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn changes(&self, container: &str) -> Result<Vec<FilesystemChange>> {
        archive::changes(&self.0, container).await
    }

    /// Makes an image of it, whose id is answered.
    ///
    /// # Errors
    ///
    /// It does not exist, or the name or a change is malformed.
    pub async fn commit(&self, request: CommitRequest) -> Result<String> {
        commit::commit(&self.0, request).await
    }

    /// Its whole file system as a tar archive.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn export(&self, container: &str) -> Result<ByteStream> {
        archive::export(&self.0, container).await
    }

    /// Describes a file in the container.
    ///
    /// # Errors
    ///
    /// The container or the file does not exist.
    pub async fn archive_stat(&self, container: &str, path: &str) -> Result<PathStat> {
        archive::stat(&self.0, container, path).await
    }

    /// A file or directory of the container as a tar archive.
    ///
    /// # Errors
    ///
    /// The container or the file does not exist.
    pub async fn archive_get(&self, container: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        archive::get(&self.0, container, path).await
    }

    /// Unpacks a tar archive into the container.
    ///
    /// # Errors
    ///
    /// The directory does not exist or cannot be written, or the archive is malformed.
    pub async fn archive_put(
        &self,
        container: &str,
        request: ArchivePut,
        body: ByteStream,
    ) -> Result<()> {
        archive::put(&self.0, container, request, body).await
    }

    /// Prepares another process in a running container; returns its id.
    ///
    /// # Errors
    ///
    /// The container does not run, or the request is wrong.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        exec::create(&self.0, container, config).await
    }

    /// Starts a prepared process.
    ///
    /// # Errors
    ///
    /// It was started before, or cannot be started.
    pub async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<ExecStarted> {
        exec::start(&self.0, exec, start).await
    }

    /// What became of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspectResponse> {
        exec::inspect(&self.0, exec)
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<()> {
        exec::resize(&self.0, exec, size).await
    }
}

/// It runs, or will run again by itself.
fn is_busy(record: &ContainerRecord) -> bool {
    record.state.phase.is_alive() || record.state.phase == Phase::Restarting
}

fn wait_response(record: &ContainerRecord) -> ContainerWaitResponse {
    let message = Some(record.state.error.clone()).filter(|text| !text.is_empty());
    ContainerWaitResponse {
        status_code: record.state.exit_code.into(),
        error: message.map(|message| ContainerWaitExitError { message: Some(message) }),
    }
}

/// The present time, RFC 3339 with nanoseconds, UTC.
pub(crate) fn now() -> String {
    brig_shim_protocol::Timestamp::now().to_string()
}

/// Seconds since 1970 of an RFC 3339 time.
pub(crate) fn timestamp_seconds(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// Tells what happened to a container.
fn publish(events: &Events, record: &ContainerRecord, action: &str, extra: &[(&str, String)]) {
    let mut attributes: HashMap<String, String> = record.config.labels.clone().unwrap_or_default();
    attributes.insert("name".into(), record.name.clone());
    attributes.insert("image".into(), record.image.clone());
    attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    events.publish(EventMessageTypeEnum::CONTAINER, action, &record.id, attributes);
}

/// The tree of a container that does not run: its snapshot with its volumes and binds. Blocks.
fn stopped_tree(shared: &Shared, record: &ContainerRecord) -> Result<Tree> {
    let mounts = shared.storage.snapshots().mounts(&snapshot_key(&record.id)?)?;
    let mut attachments = Vec::new();
    for mount in &record.mounts {
        let source = match mount.kind {
            MountKind::Tmpfs => continue,
            MountKind::Volume => {
                let name = mount.name.as_deref().unwrap_or_default();
                shared.storage.volumes().open_inside(name, mount.subpath.as_ref())?
            }
            MountKind::Bind => {
                let missing = brig_storage::MissingSource::Refuse;
                match brig_storage::resolve_bind(std::path::Path::new(&mount.source), missing) {
                    Ok(bind) => bind.fd,
                    Err(error) if error.kind() == brig_storage::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let (path, read_only) = (mount.destination.clone().into(), !mount.read_write);
        attachments.push(TreeAttachment { path, source, read_only });
    }
    Tree::of_snapshot(&mounts, attachments).map_err(Error::from)
}

/// Who the container's processes run as, by its own files. Blocks.
fn resolve_user(shared: &Shared, record: &ContainerRecord) -> Result<user::User> {
    let tree = stopped_tree(shared, record)?;
    let text = record.config.user.clone().unwrap_or_default();
    resolve_user_in(&tree, &text, record.host_config.group_add.as_deref().unwrap_or_default())
}

fn resolve_user_in(tree: &Tree, text: &str, added: &[String]) -> Result<user::User> {
    let read = |path: &str| match tree.read_file(path, user::FILE_BYTES_MAX) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // An image without the file, or with something in its place that is no file, has no users to name.
        Err(error) if error.kind() == brig_storage::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => {
            Err(Error::invalid(format!("read {path} of the container")).with_source(error))
        }
    };
    user::resolve(text, added, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// Writes a record that has no task.
async fn put(shared: &Shared, record: &ContainerRecord) -> Result<()> {
    shared.metadata.put_container(record, Write::Durable).await
}

/// Runs a blocking call with the shared parts.
async fn blocking_with<T: Send + 'static>(
    shared: &Arc<Shared>,
    call: impl FnOnce(&Arc<Shared>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(shared);
    blocking::run(move || call(&shared)).await
}
