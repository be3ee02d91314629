//! Tests that find more the longer they run, run for long.

use anyhow::Result;
use clap::Args;

use crate::packages;
use crate::process::{cargo, require_root, run, step, target_directory};

/// What the guest that loses its power is made with.
const PACKAGES: &[&str] = &["e2fsprogs", "iproute2", "kmod", "skopeo", "user-mode-linux"];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often the power of a guest is cut while it pulls, unpacks and removes an image
    #[arg(long, default_value_t = 500)]
    power_cuts: usize,
}

/// Runs them.
pub(crate) fn run_all(options: &Options) -> Result<()> {
    require_root("a soak test (it boots guests)")?;
    packages::ensure(PACKAGES)?;
    step("Building the programs under test");
    run(cargo().args(["build", "--locked", "-p", "brig"]))?;
    step("Cutting the power");
    run(cargo()
        .args(["test", "--locked", "-p", "brig-tests", "--test", "power_cut", "--", "--nocapture"])
        .env("BRIG_POWER_CUTS", options.power_cuts.to_string())
        .env("BRIG_TEST_PROGRAMS", target_directory().join("debug")))
}
