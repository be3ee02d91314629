//! The installable tree: programs, systemd units, completions and manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::binaries::{self, Profile};
use crate::install::put_file;
use crate::process::{command, output, step, workspace};

/// Where systemd looks for units below a prefix.
pub(crate) const UNITS: &str = "lib/systemd/system";

/// Files of the checkout that go into the tree as they are.
const FILES: &[(&str, &str)] = &[
    ("bins/brigd/systemd/brig.service", "lib/systemd/system/brig.service"),
    ("bins/brigd/systemd/brig.socket", "lib/systemd/system/brig.socket"),
    ("bins/runtime/man/brig-runtime.8", "share/man/man8/brig-runtime.8"),
    ("bins/shim/man/containerd-shim-brig-v1.8", "share/man/man8/containerd-shim-brig-v1.8"),
];

/// Each shell with what stands before and after a program's name in the place of its completions.
const COMPLETIONS: &[(&str, &str, &str)] = &[
    ("bash", "share/bash-completion/completions/", ""),
    ("zsh", "share/zsh/site-functions/_", ""),
    ("fish", "share/fish/vendor_completions.d/", ".fish"),
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the tree goes [default: dist in the build directory]
    directory: Option<PathBuf>,
    /// How the programs are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = match &options.directory {
        Some(directory) => std::path::absolute(directory).context("find the directory")?,
        None => options.profile.tree(),
    };
    make(&directory, options.profile)?;
    println!("\n{} is complete: `cargo xtask install` puts the same in place", directory.display());
    Ok(())
}

/// Makes the tree in `directory`; what is there of an older one is replaced.
pub(crate) fn make(directory: &Path, profile: Profile) -> Result<()> {
    binaries::build(&directory.join("bin"), profile)?;
    step("Units, completions and manual pages");
    for (from, to) in FILES {
        put_file(&workspace().join(from), &directory.join(to))?;
    }
    completions(directory)?;
    manual_pages(directory)
}

fn completions(directory: &Path) -> Result<()> {
    let bin = directory.join("bin");
    for (shell, before, after) in COMPLETIONS {
        for (program, words) in
            [("brig", ["completion", shell]), ("brigd", ["--completion", shell])]
        {
            let text = output(command(bin.join(program)).args(words))?;
            write(&directory.join(format!("{before}{program}{after}")), &text)?;
        }
    }
    Ok(())
}

fn manual_pages(directory: &Path) -> Result<()> {
    let bin = directory.join("bin");
    let pages = directory.join("share/man/man1");
    // A command that is gone must not leave its page.
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("remove {}", pages.display()))?;
    }
    output(command(bin.join("brig")).arg("generate-man").arg(&pages))?;
    let text = output(command(bin.join("brigd")).arg("--man"))?;
    write(&directory.join("share/man/man8/brigd.8"), &text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
