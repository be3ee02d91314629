//! Loggers: programs by containerd's contract, and logs that a container does not wait for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use brig_shim_protocol::options::LogOptions;
use rustix::fs::{CWD, FileType, Mode};

use crate::support::{Setup, Shim, eventually, joined, log_entries, skip};

/// A logger that keeps each stream in a file of its own, once somebody has opened its gate.
struct Program {
    directory: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let this = Self { directory };
        let gate = this.path("gate");
        rustix::fs::mknodat(CWD, &gate, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let script = "#!/bin/sh\ncd \"$2\"\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE $1\" > told\n\
                      exec 5>&-\nread line < gate\ncat <&3 > stdout &\ncat <&4 > stderr\nwait\necho > done\n";
        fs::write(this.path("logger"), script).unwrap();
        fs::set_permissions(this.path("logger"), fs::Permissions::from_mode(0o755)).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn uri(&self) -> String {
        let (program, directory) = (self.path("logger"), self.directory.path());
        format!("binary://{}?to={}", program.display(), directory.display())
    }

    fn open_the_gate(&self) {
        fs::write(self.path("gate"), "go\n").unwrap();
    }

    /// What it got of both streams, once it has ended.
    fn kept(&self) -> (String, String) {
        eventually("the logger ends", || self.path("done").exists());
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap();
        (read("stdout"), read("stderr"))
    }
}

fn logged_by(script: &str, log: LogOptions) -> Setup {
    let mut setup = Setup::script(script);
    setup.options.log = Some(log);
    setup
}

#[test]
fn a_program_gets_all_output_however_late_it_reads() {
    if skip("a_program_gets_all_output_however_late_it_reads") {
        return;
    }
    let program = Program::new();
    // More than is read before the end, less than the pipes hold.
    let script = "echo error >&2; seq 20000; echo last";
    let log = LogOptions { driver: program.uri(), ..Default::default() };
    let shim = Shim::create(logged_by(script, log));
    let told = fs::read_to_string(program.path("told")).unwrap();
    assert_eq!(told, format!("{} brig to\n", shim.id));
    shim.start();
    assert_eq!(shim.wait(""), 0);
    // What it is still to get outlives the container and its shim.
    shim.end();
    program.open_the_gate();
    let (stdout, stderr) = program.kept();
    assert!(stdout.ends_with("20000\nlast\n") && stdout.lines().count() == 20_001);
    assert_eq!(stderr, "error\n");
}

#[test]
fn a_container_that_must_not_wait_drops_whole_lines_and_says_so() {
    if skip("a_container_that_must_not_wait_drops_whole_lines_and_says_so") {
        return;
    }
    let program = Program::new();
    let log = LogOptions {
        driver: program.uri(),
        non_blocking: true,
        max_buffer_bytes: 256 << 10,
        ..Default::default()
    };
    let shim = Shim::create(logged_by("seq 500000", log));
    shim.start();
    // It ends although its logger has read nothing.
    assert_eq!(shim.wait(""), 0);
    shim.end();
    program.open_the_gate();
    let (stdout, _) = program.kept();
    let mut next: u64 = 1;
    let mut missing: u64 = 0;
    for line in stdout.lines() {
        if let Some(note) = line.strip_prefix("brig: ") {
            let count: u64 = note.split(' ').next().unwrap().parse().unwrap();
            (missing, next) = (missing + count, next + count);
        } else {
            assert_eq!(line, next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, 500_001);
    assert!(missing > 0);
}

#[test]
fn files_that_must_not_hold_up_a_container_are_written_by_a_child() {
    if skip("files_that_must_not_hold_up_a_container_are_written_by_a_child") {
        return;
    }
    let setup = Setup::script("seq 3000; echo error >&2").log(20_000, 4, true);
    let mut setup = setup;
    setup.options.log.as_mut().unwrap().non_blocking = true;
    let shim = Shim::create(setup);
    shim.start();
    assert_eq!(shim.wait(""), 0);
    let path: PathBuf = shim.log_path();
    eventually("the log is whole", || {
        let entries = log_entries(&path);
        joined(&entries, "stdout").ends_with("\n3000\n") && joined(&entries, "stderr") == "error\n"
    });
    assert!(
        Path::new(&format!("{}.1", path.display())).exists()
            || Path::new(&format!("{}.1.gz", path.display())).exists()
    );
    shim.end();
}

#[test]
fn a_terminal_is_logged_by_a_program_too() {
    if skip("a_terminal_is_logged_by_a_program_too") {
        return;
    }
    let program = Program::new();
    let log = LogOptions { driver: program.uri(), ..Default::default() };
    let shim = Shim::create(logged_by("echo seen", log).terminal());
    shim.start();
    assert_eq!(shim.wait(""), 0);
    shim.end();
    program.open_the_gate();
    assert_eq!(program.kept(), ("seen\r\n".to_owned(), String::new()));
}

#[test]
fn a_logger_that_is_not_there_is_refused_by_name() {
    if skip("a_logger_that_is_not_there_is_refused_by_name") {
        return;
    }
    for (driver, word) in
        [("binary:///no/such/logger", "/no/such/logger"), ("binary://relative", "absolute")]
    {
        let setup =
            || logged_by("true", LogOptions { driver: driver.into(), ..Default::default() });
        let shim = Shim::start_for(&setup());
        let error = shim.try_create(setup()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
