//! Start, kill, delete and the state in between.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::create::{oci_state, process_of};
use super::{Container, ContainerState, KillScope, Status};
use crate::cgroup::{Cgroup, is_frozen};
use crate::error::{Error, ErrorKind, Result, failpoint};
use crate::hooks;
use crate::process::message::{MESSAGE_MAX, Message, Step};
use crate::process::parent::{Names, explain};
use crate::state::{State, process_facts};

/// How long delete waits for killed processes to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Container {
    pub(super) fn start_container(&self) -> Result<()> {
        let _lock = self.directory.lock()?;
        let state = self.existing()?;
        if let Some(status) = self.status_without_start(&state) {
            return Err(self.conflict("start", status));
        }
        let socket = self.directory.start_socket();
        let mut stream = match brig_linux::fd::connect_unix(&socket) {
            Ok(stream) => stream,
            Err(error) => match self.status_of(&state)? {
                Status::Created => {
                    return Err(Error::from(error).context(format!("start {}", state.id)));
                }
                status => return Err(self.conflict("start", status)),
            },
        };
        failpoint("start-connected")?;
        let failed = |source| Error::system(format!("start {}", state.id), source);
        // Closed by the exec: an end of file is success. So is a connection that the exec closed before it was
        // accepted, where an earlier start said the word and was killed.
        let mut answer = Vec::new();
        let said = stream.write_all(b"S");
        let heard =
            said.and_then(|()| stream.take(MESSAGE_MAX as u64).read_to_end(&mut answer).map(drop));
        match heard {
            Err(source)
                if matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) => {}
            other => other.map_err(failed)?,
        }
        failpoint("start-released")?;
        let _ = std::fs::remove_file(&socket);
        match Message::decode(&answer) {
            Some(Message::Failed(failure)) => {
                let config = self.directory.config()?;
                return Err(explain(&failure, &StartNames(&config.spec)));
            }
            // It ran and its parent has reaped it already, or something killed it: its end says which.
            _ if !state.later_hooks || process_facts(state.pid).is_none() => return Ok(()),
            _ => {}
        }
        let config = self.directory.config()?;
        let poststart = config.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().clone());
        hooks::run(&poststart.unwrap_or_default(), "poststart", &oci_state(&state, "running"))
    }

    /// The state, of a container that was made completely enough to have one.
    pub(super) fn existing(&self) -> Result<State> {
        self.directory.read()?.ok_or_else(|| {
            let text = format!("container {} is still being made", self.directory.id());
            Error::new(ErrorKind::Conflict, text)
                .with_advice("delete it with force if whoever made it is gone")
        })
    }

    pub(super) fn conflict(&self, verb: &str, status: Status) -> Error {
        let text = format!("cannot {verb} container {}: it is {status}", self.directory.id());
        Error::new(ErrorKind::Conflict, text)
    }

    /// Init by descriptor, if it lives and is still the process that was made.
    pub(super) fn init(&self, state: &State) -> Option<OwnedFd> {
        if state.pid <= 0 {
            return None;
        }
        // Opened first, looked at second: if the start time is right then, the descriptor means that process.
        let pidfd = brig_linux::pidfd::open(state.pid).ok()?;
        let facts = process_facts(state.pid)?;
        let same = facts.start_time == state.start_time && !matches!(facts.status, 'Z' | 'X');
        same.then_some(pidfd)
    }

    pub(super) fn status_of(&self, state: &State) -> Result<Status> {
        if let Some(status) = self.status_without_start(state) {
            return Ok(status);
        }
        // The name alone says nothing: a start that was killed leaves it behind.
        let socket = self.directory.start_socket();
        let waits = socket.exists() && brig_linux::fd::is_listening(&socket)?;
        Ok(if waits { Status::Created } else { Status::Running })
    }

    /// The status as far as it does not depend on the start: `None` of a container that is created or running.
    pub(super) fn status_without_start(&self, state: &State) -> Option<Status> {
        if state.pid == 0 {
            let making = self.directory.is_locked();
            return Some(if making { Status::Creating } else { Status::Stopped });
        }
        if self.init(state).is_none() {
            return Some(Status::Stopped);
        }
        // Before the start: one that was paused before its start must be found paused, or nothing would thaw it.
        is_frozen(&state.cgroup).then_some(Status::Paused)
    }

    pub(super) fn state_of(&self, state: &State) -> Result<ContainerState> {
        let status = self.status_of(state)?;
        let annotations = &state.annotations;
        Ok(ContainerState {
            oci_version: state.oci_version.clone(),
            id: state.id.clone(),
            pid: if status == Status::Stopped { 0 } else { state.pid },
            status,
            bundle: state.bundle.clone(),
            rootfs: state.rootfs.clone(),
            created: state.created.clone(),
            annotations: (!annotations.is_empty()).then(|| annotations.clone()),
            owner: user_name(state.owner),
        })
    }

    pub(super) fn kill_container(&self, signal: i32, scope: KillScope) -> Result<()> {
        let state = self.existing()?;
        let init = self.init(&state);
        if scope == KillScope::All {
            return self.kill_all(&state, signal);
        }
        let Some(init) = init else { return Err(not_running(&state)) };
        match brig_linux::pidfd::send_signal(init.as_fd(), signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Err(not_running(&state)),
            Err(errno) => {
                let text = format!("send signal {signal} to container {}", state.id);
                return Err(Error::system(text, errno));
            }
        }
        // A frozen process acts on a fatal signal only once it is thawed (cgroup v1).
        if signal == libc::SIGKILL && is_frozen(&state.cgroup) {
            Cgroup::open_for_processes(&state.cgroup)?.thaw()?;
        }
        Ok(())
    }

    fn kill_all(&self, state: &State, signal: i32) -> Result<()> {
        if state.cgroup.is_nowhere() {
            signal_each(self.pids()?, signal);
            return Ok(());
        }
        let cgroup = match Cgroup::open_for_processes(&state.cgroup) {
            Ok(cgroup) => cgroup,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if signal == libc::SIGKILL {
            return cgroup.kill_all();
        }
        signal_each(cgroup.procs()?.into_iter().map(|pid| pid.as_raw_nonzero().get()), signal);
        Ok(())
    }

    pub(super) fn delete_container(&self, force: bool) -> Result<()> {
        let _lock = self.directory.lock()?;
        let Some(state) = self.directory.read()? else {
            // Whoever made it held the lock, and so is gone; nothing exists before the state does.
            return self.directory.remove();
        };
        let status = self.status_of(&state)?;
        // Init that waits for its start runs nothing of the user's yet.
        if !force && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
            return Err(self.conflict("delete", status));
        }
        let init = self.init(&state);
        if let Some(init) = &init {
            let _ = brig_linux::pidfd::send_signal(init.as_fd(), libc::SIGKILL);
        }
        // What only the state leads to: as long as something of it is left, the state stays, for another attempt.
        let mut left = Vec::new();
        let mut errors = Vec::new();
        match Cgroup::open_for_processes(&state.cgroup) {
            Ok(cgroup) => {
                errors.extend(cgroup.kill_all().err());
                wait_for(init.as_ref(), &mut errors);
                errors.extend(failpoint("delete-killed").err());
                left.extend(Cgroup::remove_at(&state.cgroup).err());
                errors.extend(failpoint("cgroup-removed").err());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                wait_for(init.as_ref(), &mut errors);
            }
            Err(error) => left.push(error),
        }
        left.extend(state.scope.as_ref().and_then(|scope| scope.stop().err()));
        left.extend(state.resctrl.as_ref().and_then(|groups| groups.remove().err()));
        if state.later_hooks
            && let Ok(config) = self.directory.config()
        {
            let poststop = config.spec.hooks().as_ref().and_then(|hooks| hooks.poststop().clone());
            let text = oci_state(&State { pid: 0, ..state.clone() }, "stopped");
            for hook in poststop.unwrap_or_default() {
                errors.extend(hooks::run(&[hook], "poststop", &text).err());
            }
        }
        if left.is_empty() {
            errors.extend(self.directory.remove().err());
        }
        errors.extend(left);
        summary(&state.id, &errors)
    }
}

fn signal_each(pids: impl IntoIterator<Item = i32>, signal: i32) {
    for pid in pids {
        if let Ok(pidfd) = brig_linux::pidfd::open(pid) {
            // One that ended meanwhile needs no signal.
            let _ = brig_linux::pidfd::send_signal(pidfd.as_fd(), signal);
        }
    }
}

fn wait_for(init: Option<&OwnedFd>, errors: &mut Vec<Error>) {
    let Some(init) = init else { return };
    match brig_linux::pidfd::wait_end(init.as_fd(), Some(KILL_TIMEOUT)) {
        Ok(true) => {}
        Ok(false) => {
            errors.push(Error::new(ErrorKind::Conflict, "init did not end after SIGKILL"));
        }
        Err(error) => errors.push(error.into()),
    }
}

/// One error for all that went wrong while removing.
fn summary(id: &str, errors: &[Error]) -> Result<()> {
    let Some(first) = errors.first() else { return Ok(()) };
    let text: Vec<String> = errors.iter().map(Error::chain).collect();
    Err(Error::new(first.kind(), format!("delete {id}: {}", text.join("; "))))
}

fn not_running(state: &State) -> Error {
    // Engines look for these words to tell an ended container from a failure.
    Error::new(ErrorKind::Conflict, format!("{}: container not running", state.id))
}

fn user_name(uid: u32) -> String {
    let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| uid.to_string())
}

/// The names of what can fail between start and exec.
struct StartNames<'a>(&'a oci_spec::runtime::Spec);

impl Names for StartNames<'_> {
    fn name(&self, step: Step, index: usize) -> String {
        match step {
            Step::Hook => {
                let hooks =
                    self.0.hooks().as_ref().and_then(|hooks| hooks.start_container().clone());
                let path = hooks.unwrap_or_default().get(index).map(|hook| hook.path().clone());
                format!("run startContainer hook {:?}", path.unwrap_or_default().display())
            }
            Step::Seccomp => "install the seccomp filter".to_owned(),
            Step::Capabilities => "set the capabilities".to_owned(),
            _ => process_of(self.0)
                .ok()
                .and_then(|process| process.args().clone())
                .and_then(|arguments| arguments.into_iter().next())
                .unwrap_or_default(),
        }
    }
}
