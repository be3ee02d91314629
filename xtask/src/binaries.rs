//! Builds of the four programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::install::put_file;
use crate::packages;
use crate::process::{cargo, command, output, run, step, target_directory};

/// The programs that are static: each is executed once per container start, where relocation and dynamic linking count.
const STATIC: &[(&str, &str)] =
    &[("containerd-shim-brig-v1", "containerd-shim-brig-v1"), ("brig-runtime-cli", "brig-runtime")];

/// Static, at a fixed address, and small: panics abort, so nothing reads unwind tables; and what is the same twice is kept
/// once, where rustc's own linker, which can do that, is the default.
const STATIC_FLAGS: &[&str] = &[
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Cforce-unwind-tables=no",
    // An index by which unwinding is faster, in programs that abort.
    #[cfg(target_arch = "x86_64")]
    "-Clink-arg=-Wl,--icf=all,--no-eh-frame-hdr,-O2",
];

/// The programs that stay dynamic: they resolve names through the system's libraries.
const DYNAMIC: &[&str] = &["brig", "brigd"];

/// How programs are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// As they are used: optimised, the runtime and the shim static
    #[default]
    Release,
    /// As the tests build them: quickly
    Dev,
}

impl Profile {
    /// Where the installable tree of this profile is made.
    pub(crate) fn tree(self) -> PathBuf {
        target_directory().join(match self {
            Self::Release => "dist",
            Self::Dev => "dist-dev",
        })
    }
}

/// The cargo packages of the four programs.
pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    DYNAMIC.iter().copied().chain(STATIC.iter().map(|(package, _)| *package))
}

/// Builds the four programs and copies them to `directory`.
pub(crate) fn build(directory: &Path, profile: Profile) -> Result<Vec<PathBuf>> {
    packages::ensure(packages::BUILD)?;
    let target = target_directory();
    let statics = STATIC.iter().map(|(_, program)| *program);
    let built: Vec<PathBuf> = match profile {
        Profile::Release => {
            build_release()?;
            let place = static_directory()?;
            let dynamic = DYNAMIC.iter().map(|name| target.join("release").join(name));
            dynamic.chain(statics.map(|name| place.join(name))).collect()
        }
        Profile::Dev => {
            step("Building the four programs");
            let names = packages().flat_map(|name| ["-p", name]);
            run(cargo().args(["build", "--locked"]).args(names))?;
            DYNAMIC
                .iter()
                .copied()
                .chain(statics)
                .map(|name| target.join("debug").join(name))
                .collect()
        }
    };
    let mut copies = Vec::new();
    for from in built {
        let to = directory.join(from.file_name().unwrap_or_default());
        put_file(&from, &to)?;
        copies.push(to);
    }
    Ok(copies)
}

/// Where cargo leaves the static programs.
fn static_directory() -> Result<PathBuf> {
    Ok(target_directory().join(host()?).join("static"))
}

/// The name of this machine's target.
fn host() -> Result<String> {
    let version = output(command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("find the host in what `rustc -vV` says")
}

fn build_release() -> Result<()> {
    step("Building brig and brigd (release)");
    let names = DYNAMIC.iter().flat_map(|name| ["-p", name]);
    run(cargo().args(["build", "--locked", "--release"]).args(names))?;
    let target = host()?;
    for (package, program) in STATIC {
        step(&format!("Building {program} (static)"));
        // For a named target, so that the flags do not reach procedural macros, which cannot be static. Not with the
        // caller's own flags: some linkers that they choose (mold 1.10) make static programs that crash.
        run(cargo()
            .args(["build", "--locked", "--profile", "static", "--target", &target])
            .args(["-p", package, "--bin", program])
            .env("CARGO_ENCODED_RUSTFLAGS", STATIC_FLAGS.join("\u{1f}")))?;
        step(&format!("Starting {program} once"));
        run(command(static_directory()?.join(program)).arg("-v"))?;
    }
    Ok(())
}
