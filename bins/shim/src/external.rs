//! Any OCI runtime program by its command line, with runc's words: `create`, `start`, `exec --detach`, `kill`, `pause`,
//! `resume`, `update`, `ps` and `delete`.
//!
//! Everything here runs in a forked child of the shim (see [`crate::operation`]). The program inherits the streams, so
//! what it has to say about a failure is read from its `--log`. What such a program cannot do for us is done here: root
//! file systems are mounted on the host, and statistics come from the container's cgroup.
//!
//! ```text
//! <bundle>/cgroup.json     where the container's cgroup lies, kept for when init is gone
//!          runtime-*.{log,pid,json,sock}   of one call, removed after it
//! ```

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brig_runtime::RootfsMount;
use brig_runtime::cgroup::{Cgroup, Hierarchies, Placement};
use brig_shim_protocol::ttrpc::{Code, Status};
use serde::Deserialize;

use crate::runtime::{Settings, status};

/// Where the container's cgroup is noted.
const CGROUP_FILE: &str = "cgroup.json";

const KILL: i32 = 9;

/// Most that is read of what a program logged or printed.
const OUTPUT_LENGTH_MAX: usize = 1 << 20;

/// A started process and its terminal.
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) console: Option<OwnedFd>,
}

/// An OCI runtime program, set up for one container.
pub(crate) struct External<'a> {
    settings: &'a Settings,
    id: &'a str,
}

/// A line of a runtime's log.
#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl<'a> External<'a> {
    /// The external runtime that the settings name, if they do.
    pub(crate) fn of(settings: &'a Settings, id: &'a str) -> Option<Self> {
        (!settings.binary.is_empty()).then_some(Self { settings, id })
    }

    /// Creates the container; `ends` are its streams, or empty for a terminal.
    pub(crate) fn create(
        &self,
        rootfs: &[RootfsMount],
        ends: Vec<OwnedFd>,
    ) -> Result<Started, Status> {
        fs::create_dir_all(&self.settings.root).map_err(|error| self.failed("prepare", &error))?;
        brig_runtime::container::mount_rootfs(rootfs, &self.settings.bundle.join("rootfs"))
            .map_err(|error| status(&error))?;
        let mut words = vec!["create", "--bundle", "."];
        if self.settings.no_pivot {
            words.push("--no-pivot");
        }
        if self.settings.no_new_keyring {
            words.push("--no-new-keyring");
        }
        let started = self.launch(&words, ends).inspect_err(|_| self.unmount())?;
        self.note_cgroup(started.pid).map_err(|error| status(&error))?;
        Ok(started)
    }

    /// Lets init run.
    pub(crate) fn start(&self) -> Result<(), Status> {
        self.run(&["start"], &[self.id], None).map(drop)
    }

    /// Runs a further process, given as JSON.
    pub(crate) fn exec(&self, process: &[u8], ends: Vec<OwnedFd>) -> Result<Started, Status> {
        let file = self.file("json");
        fs::write(&file, process).map_err(|error| self.failed("write a process", &error))?;
        let name = file_name(&file);
        let mut words = vec!["exec", "--detach", "--process", &name];
        if ends.is_empty() {
            words.push("--tty");
        }
        let started = self.launch(&words, ends);
        let _gone = fs::remove_file(&file);
        started
    }

    /// Kills what init left behind: by the cgroup, since runtimes differ in what they do for a container that has ended.
    pub(crate) fn kill_rest(&self) -> Result<(), Status> {
        let Ok(cgroup) = self.cgroup() else { return self.kill_all(KILL) };
        cgroup.kill_all().map_err(|error| status(&error))
    }

    /// Signals every process.
    pub(crate) fn kill_all(&self, signal: i32) -> Result<(), Status> {
        self.run(&["kill", "--all"], &[self.id, &signal.to_string()], None).map(drop)
    }

    /// Removes the container; one that is gone is fine.
    pub(crate) fn delete(&self) -> Result<(), Status> {
        let deleted = self.run(&["delete", "--force"], &[self.id], None);
        self.unmount();
        match deleted {
            // Every runtime keeps its state by the container's name: without that there is none.
            Err(status) if self.settings.root.join(self.id).exists() => Err(status),
            _ => Ok(()),
        }
    }

    /// Freezes or thaws.
    pub(crate) fn freeze(&self, paused: bool) -> Result<(), Status> {
        self.run(&[if paused { "pause" } else { "resume" }], &[self.id], None).map(drop)
    }

    /// Changes limits, given as JSON.
    pub(crate) fn update(&self, resources: &[u8]) -> Result<(), Status> {
        self.run(&["update", "--resources", "-"], &[self.id], Some(resources)).map(drop)
    }

    /// Every process of the container.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Status> {
        let output = self.run(&["ps", "--format", "json"], &[self.id], None)?;
        serde_json::from_slice(&output)
            .map_err(|error| self.failed("read the process list", &error))
    }

    /// The container's cgroup, in the hierarchies where it has one of its own.
    pub(crate) fn cgroup(&self) -> Result<Cgroup, Status> {
        let bytes = fs::read(self.settings.bundle.join(CGROUP_FILE))
            .map_err(|error| self.failed("find the cgroup", &error))?;
        let placement: Placement = serde_json::from_slice(&bytes)
            .map_err(|error| self.failed("read cgroup.json", &error))?;
        Cgroup::open(&placement).map_err(|error| status(&error))
    }

    fn note_cgroup(&self, pid: u32) -> brig_runtime::Result<()> {
        let placement = Hierarchies::detect()?.placement_of(i32::try_from(pid).unwrap_or(0))?;
        let bytes = serde_json::to_vec(&placement).unwrap_or_default();
        // Without it there are no statistics, which is no reason to refuse a container.
        let _best_effort = fs::write(self.settings.bundle.join(CGROUP_FILE), bytes);
        Ok(())
    }

    fn unmount(&self) {
        let rootfs = self.settings.bundle.join("rootfs");
        while brig_linux::mount::detach(&rootfs).is_ok() {}
    }

    /// Runs `create` or `exec`: streams are inherited, the process id comes by a file, a terminal by a socket.
    fn launch(&self, words: &[&str], ends: Vec<OwnedFd>) -> Result<Started, Status> {
        let pid_file = self.file("pid");
        let socket = self.file("sock");
        let (pid_name, socket_name) = (file_name(&pid_file), file_name(&socket));
        let mut words = [words, &["--pid-file", &*pid_name]].concat();
        let listener = if ends.is_empty() {
            words.extend(["--console-socket", &*socket_name]);
            let listening = brig_linux::fd::listen_unix(&socket);
            Some(listening.map_err(|error| self.failed("listen for a terminal", &error))?)
        } else {
            None
        };
        let launched = self.launch_with(&words, ends, listener.as_ref());
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        for file in [pid_file, socket] {
            let _gone = fs::remove_file(file);
        }
        let console = launched?;
        let pid = pid.ok_or_else(|| self.failed("start a process", &"it wrote no process id"))?;
        Ok(Started { pid, console })
    }

    fn launch_with(
        &self,
        words: &[&str],
        ends: Vec<OwnedFd>,
        listener: Option<&UnixListener>,
    ) -> Result<Option<OwnedFd>, Status> {
        // What the program leaves becomes this child's, and the shim's only with this child's end, as the shim expects.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| self.failed("become a subreaper", &errno))?;
        let (mut command, log) = self.command(words, &[self.id]);
        let mut ends = ends.into_iter().map(Stdio::from);
        command.stdin(ends.next().unwrap_or_else(Stdio::null));
        command.stdout(ends.next().unwrap_or_else(Stdio::null));
        command.stderr(ends.next().unwrap_or_else(Stdio::null));
        let ended = command.status();
        drop(command);
        self.judge(words[0], ended, &log, "")?;
        let Some(listener) = listener else { return Ok(None) };
        // The program sent it before it ended, so it waits in the queue.
        let accepted = listener
            .set_nonblocking(true)
            .and_then(|()| listener.accept())
            .and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let mut name = [0; 4096];
                Ok(brig_linux::fd::receive_with_fds(stream.as_fd(), &mut name)?.1)
            })
            .map_err(|error| self.failed("receive the terminal", &error))?;
        match accepted.into_iter().next() {
            Some(console) => Ok(Some(console)),
            None => Err(self.failed("receive the terminal", &"none was sent")),
        }
    }

    /// Runs a call that has an output and, perhaps, an input.
    fn run(&self, words: &[&str], last: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>, Status> {
        let (mut command, log) = self.command(words, last);
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| self.failed(words[0], &error))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input).map_err(|error| self.failed("hand over limits", &error))?;
        }
        let output = child.wait_with_output().map_err(|error| self.failed(words[0], &error))?;
        self.judge(words[0], Ok(output.status), &log, &String::from_utf8_lossy(&output.stderr))?;
        Ok(output.stdout)
    }

    fn command(&self, words: &[&str], last: &[&str]) -> (Command, PathBuf) {
        let log = self.file("log");
        let mut command = Command::new(&self.settings.binary);
        command.args(&self.settings.arguments);
        command.arg("--root").arg(&self.settings.root);
        command.arg("--log").arg(&log).args(["--log-format", "json"]);
        if self.settings.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // Relative names in the bundle, since a socket's may not be long.
        command.args(words).args(last).current_dir(&self.settings.bundle);
        (command, log)
    }

    fn judge(
        &self,
        what: &str,
        ended: std::io::Result<std::process::ExitStatus>,
        log: &Path,
        said: &str,
    ) -> Result<(), Status> {
        let logged = fs::read(log).unwrap_or_default();
        let _absent = fs::remove_file(log);
        let ended = ended.map_err(|error| self.failed(what, &error))?;
        if ended.success() {
            return Ok(());
        }
        let words = last_error(&logged[..logged.len().min(OUTPUT_LENGTH_MAX)])
            .or_else(|| Some(said.trim().to_owned()).filter(|said| !said.is_empty()))
            .unwrap_or_else(|| ended.to_string());
        Err(self.failed(what, &words))
    }

    fn failed(&self, what: &str, cause: &dyn std::fmt::Display) -> Status {
        let message = format!("{} {what} {}: {cause}", self.settings.binary, self.id);
        Status::new(code_of(&message), message)
    }

    /// A file of this call: its number is the child's own.
    fn file(&self, extension: &str) -> PathBuf {
        self.settings.bundle.join(format!("runtime-{}.{extension}", std::process::id()))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The last error in a runtime's JSON log.
fn last_error(log: &[u8]) -> Option<String> {
    let lines = log.split(|&byte| byte == b'\n').rev();
    let lines = lines.filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
    lines
        .into_iter()
        .find(|line| line.level != "warning" && line.level != "debug")
        .map(|line| line.msg)
}

/// What runtimes mean by their words; they have no codes.
fn code_of(message: &str) -> Code {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["executable file not found", "no such file or directory", "does not exist"]) {
        Code::NotFound
    } else if has(&["permission denied", "Permission denied"]) {
        Code::PermissionDenied
    } else if has(&["already exists", "already in use"]) {
        Code::AlreadyExists
    } else {
        Code::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let log =
            b"{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}\n\
                    {\"level\":\"warning\",\"msg\":\"mind\"}\nnot json\n";
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error(b""), None);
        assert_eq!(code_of("exec: \"x\": executable file not found in $PATH"), Code::NotFound);
        assert_eq!(code_of("something else"), Code::Unknown);
    }
}
