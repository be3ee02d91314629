//! An installable tree: programs, systemd units, completions and man pages.
//!
//! ```text
//! DIR/bin/{brig,brigd,containerd-shim-brig-v1,brig-runtime}
//! DIR/lib/systemd/system/{brigd.service,brigd.socket}
//! DIR/share/bash-completion/completions/brig
//! DIR/share/zsh/site-functions/_brig
//! DIR/share/fish/vendor_completions.d/brig.fish
//! DIR/share/man/man{1,8}/*
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::binaries;
use crate::process::{command, output, require_root, run, step, workspace};

/// Completions: shell, and the path below the tree.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "share/bash-completion/completions/brig"),
    ("zsh", "share/zsh/site-functions/_brig"),
    ("fish", "share/fish/vendor_completions.d/brig.fish"),
];

/// Builds the tree at `directory` (relative to the workspace).
pub(crate) fn build(directory: &Path) -> Result<()> {
    let tree = workspace().join(directory);
    binaries::build(&tree.join("bin"))?;
    step("Writing units, completions and man pages");
    let units = tree.join("lib/systemd/system");
    fs::create_dir_all(&units).with_context(|| format!("create {}", units.display()))?;
    for unit in ["brigd.service", "brigd.socket"] {
        let from = workspace().join("bins/brigd/systemd").join(unit);
        fs::copy(&from, units.join(unit)).with_context(|| format!("copy {}", from.display()))?;
    }
    let brig = tree.join("bin/brig");
    for (shell, path) in COMPLETIONS {
        let text = output(command(&brig).args(["completion", shell]))?;
        write(&tree.join(path), &text)?;
    }
    let man = tree.join("share/man");
    run(command(&brig).arg("generate-man").arg(man.join("man1")))?;
    run(command(tree.join("bin/brigd")).arg("--generate-man").arg(man.join("man8")))?;
    println!("{} is ready", tree.display());
    Ok(())
}

/// Builds the tree and copies it beneath `prefix`.
pub(crate) fn install(prefix: &Path) -> Result<()> {
    require_root("installing")?;
    let dist = PathBuf::from("target/dist");
    build(&dist)?;
    step(&format!("Installing to {}", prefix.display()));
    copy_tree(&workspace().join(dist), prefix)?;
    println!("Installed. Try: brig run --rm IMAGE COMMAND, or: systemctl enable --now brigd.socket");
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            // To a new name first: a running program's file cannot be overwritten.
            let fresh = target.with_extension("new");
            fs::copy(&source, &fresh).with_context(|| format!("copy to {}", fresh.display()))?;
            let mode = fs::metadata(&source).context("read mode")?.permissions().mode() & 0o755;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).context("set mode")?;
            fs::rename(&fresh, &target)
                .with_context(|| format!("rename to {}", target.display()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
