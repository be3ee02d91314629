//! The benchmarks: release programs, peers from Debian's packages, and a namespace to run them all in.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, command, require_root, run, step, target_directory};
use crate::{binaries, packages};

/// The peers and what they and the images need.
const PACKAGES: &[&str] = &[
    "aardvark-dns",
    "busybox-static",
    "conmon",
    "crun",
    "curl",
    "docker.io",
    "docker-registry",
    "iproute2",
    "netavark",
    "nftables",
    "iptables",
    "podman",
    "runc",
    "skopeo",
    "util-linux",
];

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// The benchmark and its options; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Builds everything, then runs one benchmark in a network and mount namespace of its own.
pub(crate) fn run_benchmark(options: &Options) -> Result<()> {
    require_root("a benchmark (it runs containers)")?;
    packages::ensure(PACKAGES)?;
    let programs = target_directory().join("dist/bin");
    binaries::build(&programs, binaries::Profile::Release)?;
    step("Building the benchmarks");
    run(cargo().args(["build", "--locked", "--release", "-p", "brig-benches"]))?;
    let peers = target_directory().join("peers");
    if options.words.iter().any(|word| word == "--youki") {
        install_youki(&peers)?;
    }
    step("Measuring");
    let inside = "ip link set lo up && exec \"$@\"";
    run(command("unshare")
        .args(["--mount", "--net", "--", "sh", "-c", inside, "sh"])
        .arg(target_directory().join("release/brig-bench"))
        .args(&options.words)
        .env("BRIG_BENCH_PEERS", peers)
        .env("BRIG_TEST_PROGRAMS", programs))
}

/// Builds youki, of which no Debian package exists. Before the benchmark's namespace, from which nothing is reached.
fn install_youki(directory: &Path) -> Result<()> {
    packages::ensure(&["libseccomp-dev", "pkg-config"])?;
    step("Building youki");
    run(cargo()
        .args(["install", "youki", "--version", "0.7.0", "--locked"])
        .args(["--features", "v1,v2,systemd,seccomp", "--root"])
        .arg(directory))
}
