//! Debian packages that a task needs, installed on demand.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::process::{command, find, require_root, run, step};

/// Stops packaged daemons from starting while we install them (invoke-rc.d's policy layer).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What building the whole workspace needs beside the Rust toolchain: a C compiler for zstd and ring, and the
/// protocol compiler that the ttrpc crate's build script calls.
pub(crate) const BUILD: &[&str] = &["gcc", "libc6-dev", "protobuf-compiler"];

/// Installs those of `packages` that are missing.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!(
            "these programs are needed and this is not a Debian system; install them by its own means: {}",
            missing.join(" ")
        );
    }
    require_root("installing Debian packages")?;
    step(&format!("Installing {}", missing.join(" ")));
    let _policy = NoDaemons::new()?;
    run(command("apt-get").args(["-q", "update"]).stdout(Stdio::null()))?;
    run(command("apt-get")
        .args(["-q", "-y", "install", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null()))
}

fn installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// While alive, packages may be installed but none of their daemons starts.
struct NoDaemons {
    made: bool,
}

impl NoDaemons {
    fn new() -> Result<Self> {
        let made = !Path::new(POLICY).exists();
        if made {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context("write policy-rc.d")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
                .context("make policy-rc.d executable")?;
        }
        Ok(Self { made })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(POLICY);
        }
    }
}
