//! A brigd of a test's own: in a network and mount namespace of its own, driven by the real docker command line.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up fails, and one that is skipped says so"
)]

mod background;
mod false_registry;
mod image;
mod peer;
mod registry;
mod terminal;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_guard::Guard;
use tempfile::TempDir;

pub use crate::api::Answer;
use crate::cgroups;
use crate::holder::{HOLD, Holder};
pub use background::Background;
pub use false_registry::{Content, FalseRegistry};
pub use image::{busybox, busybox_layer, pack_busybox, pack_image, pack_image_that_runs};
pub use peer::Peer;
pub use registry::Registry;
pub use terminal::Terminal;

/// How long brigd may take to listen, a command to end, and anything else to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is to come true.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until there is an answer.
///
/// # Panics
/// There is none for a minute; the message says what was waited for.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait(ask).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output without surrounding blanks, of a command that must have succeeded.
    ///
    /// # Panics
    /// It failed.
    #[must_use]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout.trim().to_owned()
    }
}

/// How an engine differs from an ordinary one.
#[derive(Debug, Default)]
pub struct Setup {
    /// Where its programs are, instead of the ordinary place.
    pub programs: Option<PathBuf>,
    /// Further settings, in TOML.
    pub config: String,
    /// Environment variables for brigd and what it starts.
    pub environment: Vec<(String, String)>,
    /// A command that brigd is an argument of, such as `strace`.
    pub wrapper: Vec<String>,
    /// Its root is a file system of its own with room for so many MiB.
    pub root_mib: Option<u32>,
}

/// A running engine. Dropping it removes every container, then checks that nothing is left.
#[derive(Debug)]
pub struct Engine {
    directory: TempDir,
    name: String,
    /// Holds the namespaces open while brigd is down.
    holder: Holder,
    daemon: Child,
    setup: Setup,
    /// The last to go: it looks at what the others have left.
    guard: Guard,
}

impl Engine {
    /// Starts an engine, or says why it cannot run here (a `SKIPPED` line, which the test command counts).
    ///
    /// # Panics
    /// Programs are there but the engine does not start.
    #[must_use]
    pub fn start(test: &str) -> Option<Self> {
        Self::start_as(test, Setup::default())
    }

    /// As [`start`](Self::start), with further lines of configuration.
    ///
    /// # Panics
    /// Programs are there but the engine does not start.
    #[must_use]
    pub fn start_with(test: &str, settings: &str) -> Option<Self> {
        Self::start_as(test, Setup { config: settings.to_owned(), ..Setup::default() })
    }

    /// As [`start`](Self::start), with all that `setup` says.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_as(test: &str, setup: Setup) -> Option<Self> {
        let missing =
            ["brigd", "containerd-shim-brig-v1"].iter().find(|name| !setup.program(name).is_file());
        let reason = match (rustix::process::geteuid().is_root(), missing, busybox()) {
            (false, ..) => "needs root".to_owned(),
            (_, Some(name), _) => {
                format!("{} is not built: use cargo xtask test", setup.program(name).display())
            }
            (.., None) => "busybox-static is not installed".to_owned(),
            _ => return Some(Self::launch(test, setup)),
        };
        eprintln!("SKIPPED {test}: {reason}");
        None
    }

    fn launch(test: &str, setup: Setup) -> Self {
        let directory = tempfile::Builder::new().prefix("brig-engine-").tempdir().unwrap();
        let name = format!("brig-test-{}-{test}", std::process::id());
        let guard = Guard::new(directory.path(), &name);
        let config = format!("cgroup-parent = \"/{name}\"\n{}", setup.config);
        fs::write(directory.path().join("config.toml"), config).unwrap();
        let mut hold = Command::new("unshare");
        let holder = Holder::start(hold.args(["--mount", "--net", "--", "sh", "-c", HOLD]));
        if let Some(size) = setup.root_mib {
            mount_root(&directory.path().join("root"), holder.id(), size);
        }
        let daemon = spawn_daemon(directory.path(), holder.id(), &setup);
        let holder_id = holder.id();
        let mut engine = Self { directory, name, holder, daemon, setup, guard };
        engine.wait_until_it_listens();
        engine.guard.prepared(Some(holder_id), vec![engine.path("state")]);
        engine
    }

    /// Runs the docker command line against the engine.
    ///
    /// # Panics
    /// There is no docker command line, or the command does not end.
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Outcome {
        self.run(&self.docker_command(words))
    }

    /// The docker command line against the engine, not started yet.
    #[must_use]
    pub fn docker_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.address()).env("DOCKER_CONFIG", self.path("docker"));
        command.args(words).current_dir(self.directory.path());
        command
    }

    /// Runs `brig` against the engine.
    ///
    /// # Panics
    /// `brig` is not built, or the command does not end.
    #[must_use]
    pub fn brig(&self, words: &[&str]) -> Outcome {
        self.run(&self.brig_command(words))
    }

    /// `brig` against the engine, not started yet.
    #[must_use]
    pub fn brig_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("brig"));
        command.env("BRIG_HOST", self.address()).args(words).current_dir(self.directory.path());
        command
    }

    /// Runs the same words with docker and with `brig`.
    #[must_use]
    pub fn both(&self, words: &[&str]) -> [Outcome; 2] {
        [self.docker(words), self.brig(words)]
    }

    /// Runs a program in the engine's network namespace, as the engine's host would.
    ///
    /// # Panics
    /// The program cannot be started or does not end.
    #[must_use]
    pub fn on_host(&self, words: &[&str]) -> Outcome {
        self.run(&self.host_command(words))
    }

    /// A program in the engine's network and mount namespaces, not started yet.
    #[must_use]
    pub fn host_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id();
        command
            .arg(format!("--net=/proc/{holder}/ns/net"))
            .arg(format!("--mount=/proc/{holder}/ns/mnt"))
            .args(words);
        command
    }

    /// The process that holds the engine's namespaces.
    #[must_use]
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a command to its end, which must come within a minute.
    #[must_use]
    pub fn run(&self, command: &Command) -> Outcome {
        let seconds = PATIENCE.as_secs().to_string();
        let mut bounded = Command::new("timeout");
        bounded
            .args(["--kill-after=5", &seconds])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            bounded.env(name, value.unwrap_or_default());
        }
        let output =
            bounded.stdin(Stdio::null()).current_dir(self.directory.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Loads a small image around busybox, called `busybox`.
    ///
    /// # Panics
    /// It cannot be packed or loaded.
    pub fn load_busybox(&self) {
        let archive = self.directory.path().join("busybox.tar");
        pack_busybox(&archive);
        let _ = self.docker(&["load", "-i", &archive.to_string_lossy()]).success();
    }

    /// What docker's command line prints for all events up to now, of those that `words` select. It cuts durations to
    /// whole seconds, so that the last ones come only when the second is over.
    #[must_use]
    pub fn events(&self, words: &[&str]) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let until = (now.as_secs() + 1).to_string();
        self.docker(&[&["events", "--since", "1", "--until", &until], words].concat()).success()
    }

    /// Kills brigd without warning and starts another.
    ///
    /// # Panics
    /// The new one does not start.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// Kills brigd without warning.
    pub fn crash(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }

    /// Ends brigd in an orderly way.
    pub fn shut_down(&mut self) {
        self.terminate();
        self.daemon.wait().unwrap();
    }

    fn terminate(&self) {
        if let Some(pid) =
            i32::try_from(self.daemon.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Starts brigd again after it went.
    pub fn restart(&mut self) {
        self.daemon = self.spawn_daemon();
        self.wait_until_it_listens();
    }

    /// What a Go template says about a container.
    #[must_use]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.docker(&["inspect", "-f", template, container]).success()
    }

    /// Starts brigd again without waiting for it.
    #[must_use]
    pub fn spawn_daemon(&self) -> Child {
        spawn_daemon(self.directory.path(), self.holder.id(), &self.setup)
    }

    /// Whether brigd has ended by itself.
    ///
    /// # Panics
    /// The kernel does not know it.
    pub fn daemon_has_ended(&mut self) -> bool {
        self.daemon.try_wait().unwrap().is_some()
    }

    /// The process id of brigd, or of the wrapper it was started by.
    #[must_use]
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Where the next brigd differs from an ordinary one.
    pub fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// Calls the API: the status and the body. An error means that no whole answer came.
    ///
    /// # Errors
    /// The connection failed, or ended before the answer did.
    pub fn api(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        crate::api::call(&self.path("brig.sock"), method, path, body)
    }

    /// `nsenter`'s option for the engine's network namespace.
    #[must_use]
    pub fn network_namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.id())
    }

    /// A file for the test's own use.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.directory.path().join("brig.sock").display())
    }

    fn wait_until_it_listens(&self) {
        let socket = self.directory.path().join("brig.sock");
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "brigd does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What brigd has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("brigd.log")).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let containers = self.docker(&["ps", "-aq"]).stdout;
        for id in containers.split_whitespace() {
            let _ = self.docker(&["rm", "--force", "--volumes", id]);
        }
        let _ = self.docker(&["network", "prune", "--force"]);
        let log = self.log();
        self.terminate();
        let _ = self.daemon.wait();
        let failed = std::thread::panicking();
        let mut left = if failed { Vec::new() } else { self.guard.left() };
        self.holder.release();
        // The parent of the containers' cgroups is the configuration's, so it is ours to remove.
        cgroups::remove(&self.name);
        if failed {
            eprintln!("brigd's log:\n{log}");
            return;
        }
        left.extend(self.guard.left_at_the_end());
        assert!(left.is_empty(), "left behind: {left:#?}\nbrigd's log:\n{log}");
    }
}

impl Setup {
    fn program(&self, name: &str) -> PathBuf {
        self.programs.as_ref().map_or_else(|| program(name), |directory| directory.join(name))
    }
}

fn mount_root(root: &Path, holder: u32, size_mib: u32) {
    fs::create_dir(root).unwrap();
    let mounted = Command::new("nsenter")
        .arg(format!("--mount=/proc/{holder}/ns/mnt"))
        .args(["mount", "-t", "tmpfs", "-o", &format!("size={size_mib}m"), "tmpfs"])
        .arg(root)
        .status();
    assert!(mounted.unwrap().success(), "mount a small file system at {}", root.display());
}

fn spawn_daemon(directory: &Path, holder: u32, setup: &Setup) -> Child {
    let log =
        fs::OpenOptions::new().create(true).append(true).open(directory.join("brigd.log")).unwrap();
    Command::new("nsenter")
        .arg(format!("--net=/proc/{holder}/ns/net"))
        .arg(format!("--mount=/proc/{holder}/ns/mnt"))
        .args(&setup.wrapper)
        .arg(setup.program("brigd"))
        // Where a test arms the points of programs that have them.
        .env("BRIG_FAILPOINTS", directory.join("points"))
        .envs(setup.environment.iter().map(|(name, value)| (name, value)))
        .arg("--root")
        .arg(directory.join("root"))
        .arg("--state")
        .arg(directory.join("state"))
        .arg("--host")
        .arg(format!("unix://{}", directory.join("brig.sock").display()))
        .arg("--config")
        .arg(directory.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The programs under test: in `BRIG_TEST_PROGRAMS`, else where cargo puts them.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("BRIG_TEST_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"),
        PathBuf::from,
    );
    directory.join(name)
}
