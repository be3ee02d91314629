//! The tests that search rather than check, with more time than a push can give them: races, kills at every system call,
//! load, random seccomp profiles, power cuts. Each takes its budget from a variable that the test names.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::leaks::Snapshot;
use crate::packages;
use crate::process::{cargo, require_root, step, target_directory};
use crate::tests::{self, Totals};

/// What the guest that loses its power is made with, beside what all tests need.
const PACKAGES: &[&str] = &["e2fsprogs", "kmod"];
/// How many tests of `safety` are races; each gets the same share of the time.
const RACES: u64 = 3;
/// Random profiles compared in a second, about.
const PROFILES_PER_SECOND: u64 = 300;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this one
    name: Option<Suite>,
    /// How long to go on, at least; a round that has begun is finished
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// How often the power of a guest is cut, in a round of `power`
    #[arg(long, default_value_t = 500)]
    power_cuts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Attackers that swap paths while containers are made
    Races,
    /// SIGKILL at every system call of the runtime's commands
    Sweep,
    /// Load, hostile containers, faults and kills against the engine
    Load,
    /// Random seccomp profiles against libseccomp
    Seccomp,
    /// A guest whose power is cut while it pulls, unpacks and removes an image
    Power,
}

/// Runs the suites, round after round, until the time is over.
pub(crate) fn run_all(options: &Options) -> Result<()> {
    require_root("soaking (it makes namespaces, cgroups, mounts and networks)")?;
    let suites = match &options.name {
        Some(one) => std::slice::from_ref(one),
        None => Suite::value_variants(),
    };
    packages::ensure(PACKAGES)?;
    tests::prepare()?;
    let before = Snapshot::take();
    let time = Duration::from_secs(options.minutes.saturating_mul(60));
    let share = time.as_secs() / suites.len() as u64;
    let start = Instant::now();
    let mut total = Totals::default();
    loop {
        for suite in suites {
            step(&format!("{suite:?}, {} minutes after the start", start.elapsed().as_secs() / 60));
            total.add(tests::suite(&mut suite.command(share, options), None)?);
        }
        if start.elapsed() >= time || total.failed > 0 {
            break;
        }
    }
    let leaks = before.grown(&Snapshot::take());
    total.report(&leaks);
    if total.failed > 0 || !leaks.is_empty() {
        bail!("{} tests failed, {} things leaked", total.failed, leaks.len());
    }
    Ok(())
}

impl Suite {
    /// The tests, with a budget of about `seconds` where they take one.
    fn command(self, seconds: u64, options: &Options) -> Command {
        let workspace = |test| {
            let mut command = cargo();
            command.args(["test", "--locked", "--no-fail-fast", "--workspace", "--test", test]);
            command.env("BRIG_TEST_PROGRAMS", target_directory().join("debug"));
            command
        };
        match self {
            Self::Races => {
                let mut command = tests::safety();
                command.env("BRIG_RACE_SECONDS", (seconds / RACES).max(1).to_string());
                command
            }
            Self::Sweep => {
                let mut command = workspace("sweep");
                command.env("BRIG_SWEEP_STEP", "1");
                command
            }
            Self::Load => {
                let mut command = workspace("robustness");
                command.env("BRIG_TEST_SOAK", "1");
                command
            }
            Self::Seccomp => {
                let profiles = seconds.saturating_mul(PROFILES_PER_SECOND);
                let mut command = cargo();
                command.args(["test", "--locked", "-p", "brig-runtime", "--lib", "differential"]);
                command.env("BRIG_SECCOMP_PROFILES", profiles.max(1000).to_string());
                command
            }
            Self::Power => {
                let mut command = workspace("power_cut");
                command.env("BRIG_POWER_CUTS", options.power_cuts.to_string());
                command
            }
        }
    }
}
