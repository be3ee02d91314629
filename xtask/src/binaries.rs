//! Builds of the four programs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use crate::install::put_file;
use crate::packages;
use crate::process::{cargo, command, run, step, target_directory};

/// The programs that are static: each is executed once per container start, where relocation and dynamic linking count.
const STATIC: &[(&str, &str)] =
    &[("containerd-shim-brig-v1", "containerd-shim-brig-v1"), ("brig-runtime-cli", "brig-runtime")];

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
            let dynamic = DYNAMIC.iter().map(|name| target.join("release").join(name));
            dynamic.chain(statics.map(|name| target.join("static").join(name))).collect()
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

fn build_release() -> Result<()> {
    step("Building brig and brigd (release)");
    let names = DYNAMIC.iter().flat_map(|name| ["-p", name]);
    run(cargo().args(["build", "--locked", "--release"]).args(names))?;
    for (package, program) in STATIC {
        step(&format!("Building {program} (static)"));
        // Through `cargo rustc`, since RUSTFLAGS without --target would also reach procedural macros, which cannot be static.
        // Without the caller's own flags: some linkers that they choose (mold 1.10) make static programs that crash.
        run(cargo()
            .args(["rustc", "--locked", "--profile", "static", "-p", package])
            .args(["--bin", program, "--"])
            .args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"])
            .env("CARGO_ENCODED_RUSTFLAGS", ""))?;
        step(&format!("Starting {program} once"));
        run(command(target_directory().join("static").join(program)).arg("-v"))?;
    }
    Ok(())
}
