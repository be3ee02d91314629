//! CRIU for the tests: Debian 12's does not know the kernels that run since, Debian 13's does.
//!
//! A program of another release needs that release's libraries. So its packages are unpacked in the build directory, and the
//! program is started by the loader among them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::image;
use crate::process::{command, output, run, step, target_directory};

/// The directory that holds the program `criu`, made if it was not; in words why there is none.
pub(crate) fn ensure() -> Result<std::result::Result<PathBuf, String>> {
    let place = target_directory().join("criu");
    let programs = place.join("bin");
    if programs.join("criu").exists() {
        return Ok(Ok(programs));
    }
    step("Unpacking CRIU of Debian 13");
    match unpack(&place) {
        Ok(()) => Ok(Ok(programs)),
        Err(error) => {
            let _ = fs::remove_dir_all(&place);
            Ok(Err(format!("{error:#}")))
        }
    }
}

fn unpack(place: &Path) -> Result<()> {
    let mirror = image::debian_mirror()?;
    let _ = fs::remove_dir_all(place);
    let tree = place.join("tree");
    for directory in ["lists/partial", "cache/archives/partial", "tree", "bin"] {
        let directory = place.join(directory);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let write = |name: &str, text: &str| {
        let path = place.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    write("sources.list", &format!("deb [signed-by={key}] {mirror} trixie main\n"))?;
    // Nothing counts as installed, so that everything comes that the program needs.
    write("status", "")?;
    run(apt(place).arg("update").stdout(Stdio::null()))?;
    run(apt(place).args(["-y", "--download-only", "install", "criu"]).stdout(Stdio::null()))?;
    let archives = place.join("cache/archives");
    for entry in fs::read_dir(&archives).context("list the packages")? {
        let package = entry.context("list the packages")?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run(command("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
        }
    }
    fs::remove_dir_all(&archives).context("remove the packages")?;
    let loader =
        output(command("find").arg(&tree).args(["-name", "ld-linux-*.so.*", "-print", "-quit"]))?;
    let libraries =
        output(command("find").arg(&tree).args(["-name", "libc.so.6", "-printf", "%h", "-quit"]))?;
    let script = format!(
        "#!/bin/sh\nexec '{}' --library-path '{}' '{}' \"$@\"\n",
        loader.trim(),
        libraries.trim(),
        tree.join("usr/sbin/criu").display(),
    );
    let program = place.join("bin/criu.unfinished");
    fs::write(&program, script).context("write the program")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .context("make it executable")?;
    run(Command::new(&program).arg("--version").stdout(Stdio::null()))?;
    fs::rename(&program, place.join("bin/criu")).context("name the program")
}

/// apt-get with lists and packages of its own, as strict about the age of lists as the host is.
fn apt(place: &Path) -> Command {
    let mut apt = command("apt-get");
    apt.arg("-q");
    for (key, value) in [
        ("Dir::Etc::SourceList", place.join("sources.list")),
        ("Dir::Etc::SourceParts", PathBuf::from("-")),
        ("Dir::State::Lists", place.join("lists")),
        ("Dir::State::status", place.join("status")),
        ("Dir::Cache", place.join("cache")),
    ] {
        apt.arg("-o").arg(format!("{key}={}", value.display()));
    }
    apt.args(["-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=root"]);
    apt.args(["-o", "APT::Keep-Downloaded-Packages=true"]);
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt
}
