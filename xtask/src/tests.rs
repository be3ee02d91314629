//! The test command: installs what the tests need, runs all of them, and counts.
//!
//! The privileged tests make namespaces, cgroups and mounts on this machine; what the machine holds is compared around the
//! whole suite. A test that cannot run here prints `SKIPPED name: why`; those lines are collected, shown and counted.

mod guests;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::binaries::{self, Profile};
use crate::install::put_file;
use crate::leaks::Snapshot;
use crate::process::{self, cargo, require_root, show, step, target_directory};
use crate::{criu, demo, packages};

/// Real parts that the integration tests use: a registry, an image tool as second client, peers and probes.
const PACKAGES: &[&str] = &[
    "buildah",
    "busybox-static",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dbus-daemon",
    "docker.io",
    "docker-registry",
    "e2fsprogs",
    "erofs-utils",
    "iproute2",
    "kmod",
    "libseccomp-dev",
    "man-db",
    "nftables",
    "openssl",
    "podman",
    "procps",
    "runc",
    "skopeo",
    "strace",
    "systemd",
    "tini",
    "uidmap",
    "umoci",
    "user-mode-linux",
    "util-linux",
];

/// Lets the tests of known attacks switch protections off.
pub(crate) const SAFETY_FEATURE: &str = "brig-runtime/unsafe-for-tests";

/// The programs that show how to use the libraries; `tests/examples.rs` runs them.
const EXAMPLES: &[&str] = &[
    "embed-runtime",
    "engine-in-process",
    "pull-image",
    "sandbox",
    "two-namespaces",
    "unpack-layers",
];

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only the tests that run in guests in QEMU, and those of them too that the rest of the tests leave out
    #[arg(long, conflicts_with = "filter")]
    vm: bool,
}

/// Runs the tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    require_root("the test suite (it makes namespaces, cgroups, mounts and networks)")?;
    let before = Snapshot::take();
    packages::ensure(PACKAGES)?;
    if let Err(why) = criu::ensure()? {
        // The tests that need it say that they are skipped.
        println!("no CRIU: {why}");
    }
    if !options.vm {
        failpoint_programs()?;
    }
    programs()?;
    let mut total = Totals::default();
    if !options.vm {
        step("Unit and privileged tests");
        let mut all = cargo();
        all.args(["test", "--locked", "--no-fail-fast", "--workspace"])
            .env("BRIG_TEST_PROGRAMS", target_directory().join("debug"));
        total.add(suite(&mut all, options.filter.as_deref())?);
        step("Known attacks, without and with their protections");
        total.add(suite(&mut safety(), options.filter.as_deref())?);
    }
    if options.filter.is_none() {
        step("The short matrix in guests");
        total.add(guests::run(options.vm)?);
    }
    if options.filter.is_none() && !options.vm {
        total.add(demonstrations());
    }
    let leaks = before.grown(&Snapshot::take());
    total.report(&leaks);
    if total.failed > 0 || !leaks.is_empty() {
        bail!("{} tests failed, {} things leaked", total.failed, leaks.len());
    }
    if total.passed == 0 {
        bail!("no test ran: is the filter right?");
    }
    Ok(())
}

/// The demonstration, and again on the machine where it ran.
fn demonstrations() -> Totals {
    let mut total = Totals::default();
    for name in ["the demonstration", "the demonstration again"] {
        match demo::demonstrate(Profile::Dev) {
            Ok(()) => total.passed += 1,
            Err(error) => {
                println!("{name}: {error:#}");
                total.failed += 1;
                total.failures.push(name.to_owned());
            }
        }
    }
    total
}

/// Installs and builds all that the tests need.
pub(crate) fn prepare() -> Result<()> {
    packages::ensure(PACKAGES)?;
    failpoint_programs()?;
    programs()
}

fn programs() -> Result<()> {
    step("Building the programs under test");
    process::run(
        cargo().args(["build", "--locked"]).args(
            binaries::packages().chain(EXAMPLES.iter().copied()).flat_map(|name| ["-p", name]),
        ),
    )
}

/// The tests that switch protections off. They have a build of the runtime of their own, which no program shares.
pub(crate) fn safety() -> Command {
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--features", SAFETY_FEATURE]);
    command.args(["--test", "safety"]);
    command
}

/// The programs that have points at which a test makes them fail, beside the ordinary ones. Built first, since cargo
/// puts both in the same place; what does not depend on the feature is compiled once for both.
fn failpoint_programs() -> Result<()> {
    step("Building the programs with failpoints");
    let programs = ["brigd", "containerd-shim-brig-v1"];
    let features = programs.map(|name| format!("{name}/failpoints")).join(",");
    process::run(
        cargo()
            .args(["build", "--locked", "--features", &features])
            .args(programs.iter().flat_map(|name| ["-p", name])),
    )?;
    let from = target_directory().join("debug");
    for name in programs {
        put_file(&from.join(name), &from.join("failpoints").join(name))?;
    }
    Ok(())
}

/// What a run of tests came to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: Vec<String>,
    pub(crate) failures: Vec<String>,
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// Reads one line of a test program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(skip) = line.trim_start().strip_prefix("SKIPPED ") {
            self.skipped.push(skip.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count_before(counts, " passed");
            self.failed += count_before(counts, " failed");
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    pub(crate) fn report(&self, leaks: &[String]) {
        step("Result");
        for skip in &self.skipped {
            println!("skipped  {skip}");
        }
        for failure in &self.failures {
            println!("failed   {failure}");
        }
        for leak in leaks {
            println!("leaked   {leak}");
        }
        println!("{}", self.counts());
    }

    /// How many passed, failed and were skipped, in words.
    fn counts(&self) -> String {
        // A skipped test returned early and libtest counted it as passed.
        let passed = self.passed.saturating_sub(self.skipped.len());
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped.len())
    }
}

fn count_before(text: &str, word: &str) -> usize {
    let digits = text.split(word).next().and_then(|head| head.rsplit([' ', ';']).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Runs one cargo test command, shows its results as they come, keeps everything in a log.
pub(crate) fn suite(command: &mut Command, filter: Option<&str>) -> Result<Totals> {
    command.arg("--");
    command.args(filter);
    command.arg("--show-output");
    let shown = show(command);
    println!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let stdout = child.stdout.take().context("take the test's output")?;
    let mut reader = Reader::new()?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("read the test's output")?;
        reader.line(&String::from_utf8_lossy(&line))?;
    }
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    if !status.success() && reader.totals.failed == 0 {
        // It did not compile, or a test program died without a result line.
        bail!("{shown}: {status} (all output: {})", log_path().display());
    }
    Ok(reader.totals)
}

/// Where everything that tests print is kept.
fn log_path() -> PathBuf {
    target_directory().join("test.log")
}

/// Reads test programs' output: counts, shows the results, keeps everything.
#[derive(Debug)]
struct Reader {
    totals: Totals,
    log: File,
    /// Inside what a successful test printed.
    quiet: bool,
}

impl Reader {
    fn new() -> Result<Self> {
        let path = log_path();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        Ok(Self { totals: Totals::default(), log, quiet: false })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.log, "{line}").context("write the test log")?;
        self.totals.read(line);
        self.quiet = match line {
            "successes:" => true,
            "failures:" => false,
            _ => self.quiet && !line.starts_with("test result:") && !line.starts_with("running "),
        };
        // How much a sweep has tried is worth knowing, also when it found nothing.
        if line.starts_with("swept ") || !self.quiet && !line.trim().is_empty() {
            println!("{line}");
        }
        Ok(())
    }
}
