//! Release builds of the four programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::process::{cargo, run, step, target_directory};

/// The programs that are static: each is executed once per container start, where relocation and dynamic linking count.
const STATIC: &[(&str, &str)] =
    &[("containerd-shim-brig-v1", "containerd-shim-brig-v1"), ("brig-runtime-cli", "brig-runtime")];

/// The programs that stay dynamic: they resolve names through the system's libraries.
const DYNAMIC: &[&str] = &["brig", "brigd"];

/// Builds the four release programs and copies them to `directory`.
pub(crate) fn build(directory: &Path) -> Result<Vec<PathBuf>> {
    packages::ensure(packages::BUILD)?;
    step("Building brig and brigd (release)");
    let mut dynamic = cargo();
    dynamic.args(["build", "--locked", "--release"]);
    for name in DYNAMIC {
        dynamic.args(["-p", name]);
    }
    run(&mut dynamic)?;
    for (package, program) in STATIC {
        step(&format!("Building {program} (static)"));
        // Through `cargo rustc`, since RUSTFLAGS without --target would also reach procedural macros, which cannot be static.
        run(cargo().args(["rustc", "--locked", "--profile", "static", "-p", package]).args([
            "--bin",
            program,
            "--",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "relocation-model=static",
        ]))?;
    }
    collect(directory)
}

fn collect(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let target = target_directory();
    let built = DYNAMIC
        .iter()
        .map(|name| target.join("release").join(name))
        .chain(STATIC.iter().map(|(_, program)| target.join("static").join(program)));
    let mut installed = Vec::new();
    for from in built {
        let to = directory.join(from.file_name().unwrap_or_default());
        // A running program cannot be overwritten, but its name can be given to a new file.
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to)
            .with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        installed.push(to);
    }
    Ok(installed)
}
