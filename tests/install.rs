//! What `cargo xtask dist` and `install` make: complete, accepted by its readers, and gone after `--uninstall`.
#![expect(clippy::unwrap_used, reason = "a test that fails stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file that is not a manual page of one of brig's commands.
const FILES: &[&str] = &[
    "bin/brig",
    "bin/brig-runtime",
    "bin/brigd",
    "bin/containerd-shim-brig-v1",
    "lib/systemd/system/brig.service",
    "lib/systemd/system/brig.socket",
    "share/bash-completion/completions/brig",
    "share/bash-completion/completions/brigd",
    "share/brig/installed-files",
    "share/fish/vendor_completions.d/brig.fish",
    "share/fish/vendor_completions.d/brigd.fish",
    "share/man/man1/brig.1",
    "share/man/man1/brig-run.1",
    "share/man/man1/brig-network-create.1",
    "share/man/man8/brig-runtime.8",
    "share/man/man8/brigd.8",
    "share/man/man8/containerd-shim-brig-v1.8",
    "share/zsh/site-functions/_brig",
    "share/zsh/site-functions/_brigd",
];

/// The task runner, beside the programs under test.
fn xtask() -> Option<PathBuf> {
    let directory = std::env::var_os("BRIG_TEST_PROGRAMS")?;
    Some(Path::new(&directory).join("xtask")).filter(|path| path.is_file())
}

#[test]
fn the_installed_tree_is_complete_readable_and_removable() {
    let Some(xtask) = xtask() else {
        eprintln!(
            "SKIPPED the_installed_tree_is_complete_readable_and_removable: use cargo xtask test"
        );
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let install = |words: &[&str]| {
        let mut command = Command::new(&xtask);
        command.args(["install", "--prefix", "/opt/brig", "--destdir"]).arg(directory.path());
        let output = command.args(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "xtask install {words:?}: {errors}");
    };
    install(&["--profile", "dev"]);
    let root = directory.path().join("opt/brig");
    for file in FILES {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    let unit = fs::read_to_string(root.join("lib/systemd/system/brig.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/brig/bin/brigd\n"), "{unit}");
    for program in ["brig", "brigd"] {
        let script = root.join("share/bash-completion/completions").join(program);
        accepted(Command::new("bash").arg("-n").arg(script));
    }
    for section in ["man1", "man8"] {
        for page in fs::read_dir(root.join("share/man").join(section)).unwrap() {
            let page = page.unwrap().path();
            let text = accepted(Command::new("man").args(["--warnings", "-l"]).arg(&page));
            let name = page.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(text.contains(&name), "{} does not say its name:\n{text}", page.display());
        }
    }
    install(&["--uninstall"]);
    let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "--uninstall leaves nothing");
}

/// Runs a program that must neither fail nor complain; returns what it printed.
fn accepted(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
