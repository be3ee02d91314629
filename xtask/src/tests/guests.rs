//! The part of the tests that runs in guests: `tests/vm`, built here and executed there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Reader, Totals};
use crate::install::{self, put_file};
use crate::process::{cargo, show, step};
use crate::vm::{self, Cgroup, Guest, Host};

/// A guest with the test modules that run in it.
struct Part {
    name: &'static str,
    cgroup: Cgroup,
    modules: &'static [&'static str],
    /// Also without being asked for: a guest that is emulated takes minutes.
    always: bool,
}

const PARTS: &[Part] = &[
    Part {
        name: "cgroup v2",
        cgroup: Cgroup::V2,
        modules: &["engine::", "limits::", "rootless::", "runtime::", "systemd::"],
        always: true,
    },
    Part {
        name: "cgroup v1",
        cgroup: Cgroup::V1,
        modules: &["limits::", "rootless::", "runtime::", "systemd::"],
        always: true,
    },
    Part {
        name: "hybrid cgroups",
        cgroup: Cgroup::Hybrid,
        modules: &["limits::", "rootless::", "runtime::", "systemd::"],
        always: false,
    },
];

/// Memory of a guest, in MiB.
const MEMORY_MIB: u32 = 1024;

/// How long the tests of one guest may take, by software on a busy machine.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Where the test program is put in the tree that the guest sees as `/usr/local`.
const PROGRAM: &str = "libexec/brig/vm-tests";

/// Runs the tests in guests: in all of them, or in those that every run of the tests has.
pub(super) fn run(all: bool) -> Result<Totals> {
    let host = match Host::prepare()? {
        Ok(host) => host,
        Err(why) => {
            println!("SKIPPED vm: {why}");
            // Skipped tests are counted as passed by their programs; here none ran.
            return Ok(Totals {
                passed: 1,
                skipped: vec![format!("vm: {why}")],
                ..Totals::default()
            });
        }
    };
    let programs = vm::directory().join("programs");
    install::for_guest(&programs)?;
    put_file(&build()?, &programs.join(PROGRAM))?;
    let mut total = Totals::default();
    for part in PARTS.iter().filter(|part| all || part.always) {
        let mut totals = execute(&host, &programs, part)?;
        for failure in &mut totals.failures {
            *failure = format!("{failure} (in the guest with {})", part.name);
        }
        println!("guest with {}: {}", part.name, totals.counts());
        total.add(totals);
    }
    Ok(total)
}

/// Runs the tests of one guest.
fn execute(host: &Host, programs: &Path, part: &Part) -> Result<Totals> {
    let program = format!("/usr/local/{PROGRAM}");
    let words = [program.as_str(), "--test-threads=1", "--show-output"];
    let words: Vec<String> = words.iter().chain(part.modules).map(ToString::to_string).collect();
    let guest =
        Guest { cgroup: part.cgroup, memory_mib: MEMORY_MIB, command_limit: LIMIT, keep: false };
    let reader = Arc::new(Mutex::new(Reader::new()?));
    let output = Lines { reader: Arc::clone(&reader), begun: Vec::new() };
    let ended = host.execute(&guest, programs, &words, output, io::stderr());
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let mut totals = std::mem::take(&mut reader.totals);
    match ended {
        Ok(0) => {}
        Ok(code) if totals.failed == 0 => fail(&mut totals, &format!("the tests end with {code}")),
        Ok(_) => {}
        Err(error) => fail(&mut totals, &format!("{error:#}")),
    }
    Ok(totals)
}

/// Counts a guest that failed as a whole.
fn fail(totals: &mut Totals, why: &str) {
    println!("{why}");
    totals.failed += 1;
    totals.failures.push("vm".to_owned());
}

/// Builds the test program as the rest of the workspace is built for tests, so that little of it is built again.
fn build() -> Result<PathBuf> {
    step("Building the guests' tests");
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--test", "vm", "--no-run"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    let shown = show(&command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let wanted = message["target"]["name"] == "vm";
        wanted.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    executable.with_context(|| format!("{shown}: named no program"))
}

/// Hands on what is written, line by line.
struct Lines {
    reader: Arc<Mutex<Reader>>,
    begun: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            if *byte != b'\n' {
                self.begun.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.begun).into_owned();
            self.begun.clear();
            reader.line(line.trim_end_matches('\r')).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
