//! Further processes in a running container.
//!
//! An exec is prepared by [`create`], started once by [`start`], and remembered after its end so that its exit code can be
//! asked for: at most [`KEPT_MAX`] ended ones, the oldest going first, and none longer than its container.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brig_engine_api::stream::FrameDecoder;
use brig_shim_protocol::attach::AttachRequest;
use brig_shim_protocol::options::ExecOptions;
use brig_shim_protocol::types::Status;
use brig_storage::Tree;
use bytes::BytesMut;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::requests::{ExecStart, ExecStarted, TerminalSize};
use super::spec::{self, ExecInput};
use super::state::Phase;
use super::{Shared, View, attach, blocking_with, descendants, lifecycle, resolve_user_in, signal};
use crate::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::models::{ExecConfig, ExecInspectResponse, ProcessConfig};
use crate::name;
use crate::shim_client::Shim;

/// Execs that ended and are remembered.
const KEPT_MAX: usize = 4096;
/// Execs of all containers that may be prepared or run.
const EXECS_MAX: usize = 65_536;
/// How long an ended exec's output may take to reach a slow client before the shim forgets it.
const DELETE_PATIENCE: Duration = Duration::from_secs(60);

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

#[derive(Debug)]
struct Exec {
    id: String,
    container: String,
    config: ExecConfig,
    state: Mutex<ExecState>,
}

#[derive(Debug, Clone, Default)]
struct ExecState {
    started: bool,
    running: bool,
    pid: u32,
    exit_code: Option<i32>,
    /// Orders ended execs.
    ended_at: Option<std::time::Instant>,
}

impl Exec {
    fn state(&self) -> MutexGuard<'_, ExecState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, exec: Arc<Exec>) -> Result<()> {
        let mut execs = self.lock();
        if execs.len() >= EXECS_MAX {
            return Err(Error::new(ErrorKind::Exhausted, format!("more than {EXECS_MAX} execs")));
        }
        if execs.len() >= KEPT_MAX {
            let oldest = execs
                .values()
                .filter_map(|exec| Some((exec.state().ended_at?, exec.id.clone())))
                .min();
            if let Some((_, id)) = oldest {
                execs.remove(&id);
            }
        }
        execs.insert(exec.id.clone(), exec);
        Ok(())
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>> {
        self.lock()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// A container is gone.
    pub(crate) fn forget_container(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container != container);
    }

    /// The running execs of a container.
    pub(crate) fn of_container(&self, container: &str) -> Vec<String> {
        let execs = self.lock();
        execs
            .values()
            .filter(|exec| exec.container == container && exec.state().running)
            .map(|exec| exec.id.clone())
            .collect()
    }
}

/// Prepares a process.
pub(super) async fn create(
    shared: &Arc<Shared>,
    container: &str,
    config: ExecConfig,
) -> Result<String> {
    let view = running(shared, container)?;
    let command = config.cmd.clone().unwrap_or_default();
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    let exec = Exec {
        id: name::new_id(),
        container: view.record.id.clone(),
        config,
        state: Mutex::default(),
    };
    let id = exec.id.clone();
    shared.execs.insert(Arc::new(exec))?;
    super::publish(
        &shared.events,
        &view.record,
        &format!("exec_create: {}", command.join(" ")),
        &[("execID", id.clone())],
    );
    Ok(id)
}

fn running(shared: &Shared, container: &str) -> Result<Arc<View>> {
    let view = shared.table.find(container)?.view();
    let id = &view.record.id;
    match view.record.state.phase {
        Phase::Running => Ok(view),
        Phase::Paused => Err(Error::conflict(format!(
            "container {id} is paused, unpause the container before exec"
        ))),
        Phase::Restarting => Err(Error::conflict(format!(
            "Container {id} is restarting, wait until the container is running"
        ))),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Starts a prepared process.
pub(super) async fn start(shared: &Arc<Shared>, id: &str, start: ExecStart) -> Result<ExecStarted> {
    let exec = shared.execs.find(id)?;
    let view = running(shared, &exec.container)?;
    {
        let mut state = exec.state();
        if state.started {
            return Err(Error::conflict(format!("exec command {id} has already been started")));
        }
        state.started = true;
    }
    let shim = shared.table.find(&exec.container)?.shim()?;
    let detached = start.detach;
    let begun = begin(shared, &exec, &view, &shim, start).await;
    match begun {
        Ok(started) => {
            let command = exec.config.cmd.clone().unwrap_or_default().join(" ");
            let attributes = [("execID", exec.id.clone())];
            super::publish(
                &shared.events,
                &view.record,
                &format!("exec_start: {command}"),
                &attributes,
            );
            Ok(started)
        }
        Err(error) => {
            let report = error.report();
            let mut state = exec.state();
            state.exit_code = Some(exit_code_of_failed_exec(&report));
            state.ended_at = Some(std::time::Instant::now());
            if detached {
                return Err(error);
            }
            // Docker: whoever wants the streams gets them, with the failure as the output, and then asks for the code.
            let tty = exec.config.tty.unwrap_or(false);
            Ok(ExecStarted::Attached(attach::message(tty, &format!("{report}\r\n"))))
        }
    }
}

/// What docker ends with when the process could not be started: 127 when there is no such program, else 126.
fn exit_code_of_failed_exec(report: &str) -> i32 {
    match lifecycle::exit_code_of_failed_start(report) {
        127 => 127,
        _ => 126,
    }
}

async fn begin(
    shared: &Arc<Shared>,
    exec: &Arc<Exec>,
    view: &Arc<View>,
    shim: &Shim,
    start: ExecStart,
) -> Result<ExecStarted> {
    let config = &exec.config;
    let tty = config.tty.unwrap_or(false);
    let process = process(shared, view, config.clone(), start.console_size).await?;
    let stdin = !start.detach && config.attach_stdin.unwrap_or(false);
    let options = ExecOptions { open_stdin: stdin, process };
    shim.exec(&exec.id, tty, &options).await.map_err(failed)?;
    failpoint::hit("exec-added")?;
    let request = AttachRequest {
        exec_id: exec.id.clone(),
        stdin,
        stdout: config.attach_stdout.unwrap_or(false) || tty,
        stderr: config.attach_stderr.unwrap_or(false),
        lossless: true,
        ..AttachRequest::default()
    };
    let started = async {
        let connection =
            if start.detach { None } else { Some(shim.place().attach(&request).await?.0) };
        let pid = shim.start(&exec.id).await.map_err(failed)?;
        failpoint::hit("exec-started")?;
        Ok((connection, pid))
    };
    let (connection, pid) = match started.await {
        Ok(started) => started,
        Err(error) => {
            let _ = shim.delete(&exec.id).await;
            return Err(error);
        }
    };
    {
        let mut state = exec.state();
        state.running = true;
        state.pid = pid;
    }
    let (noted, end) = oneshot::channel();
    follow(shared, Arc::clone(exec), Arc::clone(view), shim.clone(), noted);
    Ok(match connection {
        None => ExecStarted::Detached,
        Some(connection) => {
            let (sender, receiver) = oneshot::channel();
            let _ = sender.send(connection);
            let mut streams = attach::streams(receiver, tty, stdin);
            streams.output = Box::new(attach::EndsWhenNoted::new(streams.output, end));
            ExecStarted::Attached(streams)
        }
    })
}

fn failed(error: Error) -> Error {
    let kind =
        match lifecycle::exit_code_of_failed_start(&format!("OCI runtime {}", error.report())) {
            126 | 127 => ErrorKind::InvalidInput,
            _ => error.kind(),
        };
    Error::new(kind, "OCI runtime exec failed").with_source(error)
}

/// Notes the end of a process, and says so.
fn follow(
    shared: &Arc<Shared>,
    exec: Arc<Exec>,
    view: Arc<View>,
    shim: Shim,
    noted: oneshot::Sender<()>,
) {
    let again = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let closing = again.closing.clone();
        let exit = tokio::select! {
            () = closing.cancelled() => return,
            exit = shim.wait(&exec.id) => exit,
        };
        let code = exit.map_or(255, |exit| exit.code);
        {
            let mut state = exec.state();
            state.running = false;
            state.exit_code = Some(code);
            state.ended_at = Some(std::time::Instant::now());
        }
        // Nobody listens to a detached one.
        let _ = noted.send(());
        let attributes = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
        super::publish(&again.events, &view.record, "exec_die", &attributes);
        // A shim that died has nothing left to forget.
        let _ = tokio::time::timeout(DELETE_PATIENCE, shim.delete(&exec.id)).await;
    });
}

/// The OCI process of an exec, JSON.
async fn process(
    shared: &Arc<Shared>,
    view: &Arc<View>,
    config: ExecConfig,
    console_size: Option<TerminalSize>,
) -> Result<Vec<u8>> {
    let view = Arc::clone(view);
    blocking_with(shared, move |shared| {
        let record = &view.record;
        let tree = tree_of(record.state.pid)?;
        let asked = config.user.as_deref().filter(|user| !user.is_empty());
        let text = asked.or(record.config.user.as_deref()).unwrap_or_default();
        let added = record.host_config.group_add.as_deref().unwrap_or_default();
        let user = resolve_user_in(&tree, text, if asked.is_some() { &[] } else { added })?;
        let size = console_size.or_else(|| match config.console_size.as_deref() {
            Some([height, width]) => Some(TerminalSize {
                width: u16::try_from(*width).ok()?,
                height: u16::try_from(*height).ok()?,
            }),
            _ => None,
        });
        let input = ExecInput {
            record,
            config: &shared.config,
            exec: &config,
            user: &user,
            console_size: size,
        };
        let process = spec::exec_process(&input)?;
        serde_json::to_vec(&process)
            .map_err(|source| Error::invalid("encode the process").with_source(source))
    })
    .await
}

/// The tree that a running container sees. Blocks.
pub(super) fn tree_of(pid: u32) -> Result<Tree> {
    let gone = || Error::conflict("the container has just ended");
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
    Tree::of_process(pid, pidfd.as_fd()).map_err(Error::from)
}

/// What became of an exec.
pub(super) fn inspect(shared: &Shared, id: &str) -> Result<ExecInspectResponse> {
    let exec = shared.execs.find(id)?;
    let state = exec.state().clone();
    let config = &exec.config;
    let mut command = config.cmd.clone().unwrap_or_default();
    let entrypoint = if command.is_empty() { String::new() } else { command.remove(0) };
    Ok(ExecInspectResponse {
        can_remove: Some(!state.running && state.started),
        detach_keys: Some(config.detach_keys.clone().unwrap_or_default()),
        id: Some(exec.id.clone()),
        running: Some(state.running),
        exit_code: state.exit_code.map(i64::from),
        process_config: Some(ProcessConfig {
            privileged: config.privileged,
            user: config.user.clone(),
            tty: Some(config.tty.unwrap_or(false)),
            entrypoint: Some(entrypoint),
            arguments: Some(command),
        }),
        open_stdin: Some(config.attach_stdin.unwrap_or(false)),
        open_stderr: Some(config.attach_stderr.unwrap_or(false)),
        open_stdout: Some(config.attach_stdout.unwrap_or(false)),
        container_id: Some(exec.container.clone()),
        pid: Some(state.pid.into()),
    })
}

/// Sets the size of an exec's terminal.
pub(super) async fn resize(shared: &Arc<Shared>, id: &str, size: TerminalSize) -> Result<()> {
    let exec = shared.execs.find(id)?;
    if !exec.state().running {
        return Err(Error::conflict(format!("exec {id} is not running")));
    }
    shared.table.find(&exec.container)?.shim()?.resize(&exec.id, size.width, size.height).await
}

/// Runs a command in a container to its end: for health checks. Output past `output_bytes_max` is dropped.
pub(super) async fn probe(
    shared: &Arc<Shared>,
    container: &str,
    command: Vec<String>,
    timeout: Duration,
    output_bytes_max: usize,
) -> Result<(i32, String)> {
    let view = running(shared, container)?;
    let shim = shared.table.find(container)?.shim()?;
    let config = ExecConfig { cmd: Some(command), ..ExecConfig::default() };
    let process = process(shared, &view, config, None).await?;
    let id = name::new_id();
    shim.exec(&id, false, &ExecOptions { open_stdin: false, process }).await.map_err(failed)?;
    let ran = async {
        let request = AttachRequest {
            exec_id: id.clone(),
            stdout: true,
            stderr: true,
            lossless: true,
            ..Default::default()
        };
        let (mut connection, _) = shim.place().attach(&request).await?;
        let pid = shim.start(&id).await.map_err(failed)?;
        let mut output = Vec::new();
        let mut buffer = BytesMut::with_capacity(16 << 10);
        let reading = async {
            let mut frames = FrameDecoder::new();
            while let Ok(1..) = connection.read_buf(&mut buffer).await {
                while let Ok(Some(frame)) = frames.decode(&mut buffer) {
                    let room = output_bytes_max.saturating_sub(output.len());
                    output.extend_from_slice(&frame.data[..frame.data.len().min(room)]);
                }
            }
        };
        let both = async { tokio::join!(reading, shim.wait(&id)).1 };
        match tokio::time::timeout(timeout, both).await {
            Ok(exit) => Ok((exit?.code, String::from_utf8_lossy(&output).into_owned())),
            Err(_) => {
                // While the shim has not reaped it, its number cannot be another's; then it is not found any more.
                let alive = shim.state(&id).await.is_ok_and(|state| {
                    Status::try_from(state.status).is_ok_and(|status| status == Status::Running)
                });
                if alive {
                    blocking::run(move || {
                        descendants::kill(pid);
                        Ok(())
                    })
                    .await?;
                }
                // Where the kernel does not tell children, the check itself ends at least.
                let _ = shim.kill(&id, signal::KILL, true).await;
                Ok((-1, format!("Health check exceeded timeout ({}s)", timeout.as_secs_f64())))
            }
        }
    };
    let result = ran.await;
    let _ = shim.delete(&id).await;
    result
}
