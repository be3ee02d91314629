//! Containers: one task owns each, [`Containers`] is the door.

mod requests;
mod seccomp_profile;

pub use requests::{
    ArchivePut, AttachRequest, CreateContainer, ExecStart, ExecStarted, ListContainers,
    LogsRequest, Outcome, PathStat, RemoveOptions, StatsRequest, StopOptions, TerminalSize,
    WaitCondition, WaitFuture,
};

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::models::{
    ContainerCreateResponse, ContainerInspectResponse, ContainerPruneResponse, ContainerSummary,
    ContainerTopResponse, ContainerUpdateBody, ContainerUpdateResponse, ExecConfig,
    ExecInspectResponse, FilesystemChange,
};
use crate::stream::{AttachStream, ByteStream, LogStream, StatsStream};

/// All containers of the engine.
#[derive(Debug, Clone)]
pub struct Containers;

impl Containers {
    /// Makes a container; it does not run yet.
    pub async fn create(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        let _ = (request,);
        Err(Error::unsupported("create: not built yet"))
    }

    /// Starts a container that does not run.
    pub async fn start(&self, container: &str) -> Result<Outcome> {
        let _ = (container,);
        Err(Error::unsupported("start: not built yet"))
    }

    /// Asks a container to end and kills it when its time is up.
    pub async fn stop(&self, container: &str, options: StopOptions) -> Result<Outcome> {
        let _ = (container, options);
        Err(Error::unsupported("stop: not built yet"))
    }

    /// Stops and starts.
    pub async fn restart(&self, container: &str, options: StopOptions) -> Result<()> {
        let _ = (container, options);
        Err(Error::unsupported("restart: not built yet"))
    }

    /// Sends a signal, `KILL` by default.
    pub async fn kill(&self, container: &str, signal: Option<&str>) -> Result<()> {
        let _ = (container, signal);
        Err(Error::unsupported("kill: not built yet"))
    }

    /// Freezes all its processes.
    pub async fn pause(&self, container: &str) -> Result<()> {
        let _ = (container,);
        Err(Error::unsupported("pause: not built yet"))
    }

    /// Thaws them.
    pub async fn unpause(&self, container: &str) -> Result<()> {
        let _ = (container,);
        Err(Error::unsupported("unpause: not built yet"))
    }

    /// Gives it another name.
    pub async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let _ = (container, name);
        Err(Error::unsupported("rename: not built yet"))
    }

    /// Removes it and all it owns.
    pub async fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        let _ = (container, options);
        Err(Error::unsupported("remove: not built yet"))
    }

    /// Registers a wait; the future it returns yields the exit status.
    pub async fn wait(&self, container: &str, condition: WaitCondition) -> Result<WaitFuture> {
        let _ = (container, condition);
        Err(Error::unsupported("wait: not built yet"))
    }

    /// Lists containers, newest first.
    pub async fn list(&self, request: ListContainers) -> Result<Vec<ContainerSummary>> {
        let _ = (request,);
        Err(Error::unsupported("list: not built yet"))
    }

    /// Everything about one container.
    pub async fn inspect(&self, container: &str, size: bool) -> Result<ContainerInspectResponse> {
        let _ = (container, size);
        Err(Error::unsupported("inspect: not built yet"))
    }

    /// Its processes.
    pub async fn top(
        &self,
        container: &str,
        ps_arguments: Option<&str>,
    ) -> Result<ContainerTopResponse> {
        let _ = (container, ps_arguments);
        Err(Error::unsupported("top: not built yet"))
    }

    /// Its log.
    pub async fn logs(&self, container: &str, request: LogsRequest) -> Result<LogStream> {
        let _ = (container, request);
        Err(Error::unsupported("logs: not built yet"))
    }

    /// The streams of its first process.
    pub async fn attach(&self, container: &str, request: AttachRequest) -> Result<AttachStream> {
        let _ = (container, request);
        Err(Error::unsupported("attach: not built yet"))
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, container: &str, size: TerminalSize) -> Result<()> {
        let _ = (container, size);
        Err(Error::unsupported("resize: not built yet"))
    }

    /// Its resource use.
    pub async fn stats(&self, container: &str, request: StatsRequest) -> Result<StatsStream> {
        let _ = (container, request);
        Err(Error::unsupported("stats: not built yet"))
    }

    /// Changes limits and the restart policy.
    pub async fn update(
        &self,
        container: &str,
        update: ContainerUpdateBody,
    ) -> Result<ContainerUpdateResponse> {
        let _ = (container, update);
        Err(Error::unsupported("update: not built yet"))
    }

    /// Removes all that do not run.
    pub async fn prune(&self, filters: Filters) -> Result<ContainerPruneResponse> {
        let _ = (filters,);
        Err(Error::unsupported("prune: not built yet"))
    }

    /// What it changed in its file system.
    pub async fn changes(&self, container: &str) -> Result<Vec<FilesystemChange>> {
        let _ = (container,);
        Err(Error::unsupported("changes: not built yet"))
    }

    /// Its whole file system as a tar archive.
    pub async fn export(&self, container: &str) -> Result<ByteStream> {
        let _ = (container,);
        Err(Error::unsupported("export: not built yet"))
    }

    /// Describes a file in the container.
    pub async fn archive_stat(&self, container: &str, path: &str) -> Result<PathStat> {
        let _ = (container, path);
        Err(Error::unsupported("archive stat: not built yet"))
    }

    /// A file or directory of the container as a tar archive.
    pub async fn archive_get(&self, container: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let _ = (container, path);
        Err(Error::unsupported("archive get: not built yet"))
    }

    /// Unpacks a tar archive into the container.
    pub async fn archive_put(
        &self,
        container: &str,
        request: ArchivePut,
        body: ByteStream,
    ) -> Result<()> {
        let _ = (container, request, body);
        Err(Error::unsupported("archive put: not built yet"))
    }

    /// Prepares another process in a running container; returns its id.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        let _ = (container, config);
        Err(Error::unsupported("exec create: not built yet"))
    }

    /// Starts a prepared process.
    pub async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<ExecStarted> {
        let _ = (exec, start);
        Err(Error::unsupported("exec start: not built yet"))
    }

    /// What became of it.
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspectResponse> {
        let _ = (exec,);
        Err(Error::unsupported("exec inspect: not built yet"))
    }

    /// Sets the size of its terminal.
    pub async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<()> {
        let _ = (exec, size);
        Err(Error::unsupported("exec resize: not built yet"))
    }
}
