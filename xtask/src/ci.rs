//! What CI checks; a reader can run the same.

use std::process::Stdio;

use anyhow::Result;
use clap::Args;

use crate::process::{self, cargo, command, step};
use crate::{layers, packages, tests};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only the checks, without the tests
    #[arg(long)]
    skip_tests: bool,
}

/// Runs every check, cheapest first.
pub(crate) fn run(options: &Options) -> Result<()> {
    packages::ensure(packages::BUILD)?;
    step("Format");
    process::run(cargo().args(["fmt", "--all", "--", "--check"]))?;
    step("Layers");
    layers::check()?;
    step("Clippy");
    process::run(cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--features",
        tests::SAFETY_FEATURE,
        "--",
        "-D",
        "warnings",
    ]))?;
    step("Documentation");
    process::run(
        cargo()
            .args(["doc", "--locked", "--workspace", "--lib", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    step("Licences, bans and sources");
    deny()?;
    if options.skip_tests {
        return Ok(());
    }
    tests::run(&tests::Options::default())
}

fn deny() -> Result<()> {
    let present = command("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !present.is_ok_and(|status| status.success()) {
        install_deny()?;
    }
    // Advisories need a database from elsewhere; run `cargo deny check advisories` where it can be fetched.
    process::run(cargo().args(["deny", "--locked", "check", "licenses", "bans", "sources"]))
}

fn install_deny() -> Result<()> {
    process::run(cargo().args(["install", "--quiet", "--locked", "cargo-deny@0.20.2"]))
}
