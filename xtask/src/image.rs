//! Images made on this machine out of Debian packages, as docker archives that any engine loads.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::packages;
use crate::process::{command, output, run, step, target_directory};

/// What an image is to be.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    /// Repository and tag, as `docker images` will show it.
    pub(crate) name: &'a str,
    /// Debian packages to install beside the essential ones.
    pub(crate) packages: &'a [&'a str],
    /// Shell lines run on the finished tree, which is `$1`.
    pub(crate) customise: &'a str,
    /// The `config` object of the image.
    pub(crate) config: Value,
}

/// nginx as people run it: in the foreground, logging to stdout and stderr.
pub(crate) fn nginx() -> Recipe<'static> {
    Recipe {
        name: "nginx:latest",
        packages: &["nginx-light"],
        customise: "ln -sf /dev/stdout \"$1/var/log/nginx/access.log\"; ln -sf /dev/stderr \"$1/var/log/nginx/error.log\"",
        config: json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        }),
    }
}

/// Builds the image's archive once and returns its path; a finished one is kept in the build directory.
pub(crate) fn debian(recipe: &Recipe<'_>) -> Result<PathBuf> {
    let directory = target_directory().join("images");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let fingerprint = hex(&Sha256::digest(format!("{recipe:?}")));
    let archive = directory.join(format!("{}.tar", fingerprint.get(..16).unwrap_or_default()));
    if archive.exists() {
        return Ok(archive);
    }
    packages::ensure(&["mmdebstrap"])?;
    step(&format!("Making {} out of Debian packages", recipe.name));
    let work = tempfile::tempdir_in(&directory).context("make a work directory")?;
    let layer = work.path().join("layer.tar");
    let mut bootstrap = mmdebstrap();
    bootstrap.arg("--variant=essential");
    if !recipe.packages.is_empty() {
        bootstrap.arg(format!("--include={}", recipe.packages.join(",")));
    }
    for unneeded in ["usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "var/cache/apt/*"]
    {
        bootstrap.arg(format!("--customize-hook=rm -rf \"$1\"/{unneeded}"));
    }
    if !recipe.customise.is_empty() {
        bootstrap.arg(format!("--customize-hook={}", recipe.customise));
    }
    bootstrap.arg("bookworm").arg(&layer);
    if let Some(sources) = apt_sources() {
        bootstrap.arg(sources);
    }
    run(&mut bootstrap)?;
    docker_archive(&layer, recipe, work.path(), &archive)?;
    println!("{} is {} MB", recipe.name, fs::metadata(&archive).context("size")?.len() / 1_000_000);
    Ok(archive)
}

/// Packs a layer and its configuration in the form `docker save` writes.
fn docker_archive(layer: &Path, recipe: &Recipe<'_>, work: &Path, archive: &Path) -> Result<()> {
    let diff_id = format!("sha256:{}", hash_file(layer)?);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": recipe.config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "mmdebstrap"}],
    });
    let config = serde_json::to_vec(&config).context("write the configuration")?;
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    write(&work.join(&config_name), &config)?;
    let manifest =
        json!([{"Config": config_name, "RepoTags": [recipe.name], "Layers": ["layer.tar"]}]);
    write(&work.join("manifest.json"), manifest.to_string().as_bytes())?;
    let unfinished = archive.with_extension("unfinished");
    run(command("tar").arg("-C").arg(work).arg("-cf").arg(&unfinished).args([
        "manifest.json",
        &config_name,
        "layer.tar",
    ]))?;
    fs::rename(&unfinished, archive).with_context(|| format!("rename to {}", archive.display()))
}

/// mmdebstrap, as strict about the age of package lists as the host itself is.
pub(crate) fn mmdebstrap() -> Command {
    let mut bootstrap = command("mmdebstrap");
    bootstrap.arg("--quiet");
    let key = "Acquire::Check-Valid-Until";
    let setting = output(command("apt-config").args(["dump", key])).unwrap_or_default();
    if setting.contains("\"false\"") {
        // Mirrors that stand still are in use; the signatures are checked all the same.
        bootstrap.arg(format!("--aptopt={key} \"false\""));
    }
    bootstrap
}

/// Arguments for mmdebstrap: the host's own package sources, and Debian 12's backports from the same place.
pub(crate) fn backports() -> Result<[String; 2]> {
    let (sources, mirror) = sources_and_mirror()?;
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = format!("deb [signed-by={key}] {mirror} bookworm-backports main");
    Ok([sources.to_owned(), line])
}

/// The address of Debian's main archive, from which other releases come as well.
pub(crate) fn debian_mirror() -> Result<String> {
    sources_and_mirror().map(|(_, mirror)| mirror)
}

fn sources_and_mirror() -> Result<(&'static str, String)> {
    let sources = apt_sources().context(
        "this machine has no package sources of Debian 12 in /etc/apt to take other packages from",
    )?;
    let text = fs::read_to_string(sources).with_context(|| format!("read {sources}"))?;
    let mirror = mirror(&text).with_context(|| {
        format!(
            "{sources} names no mirror of bookworm's main archive, from where others would come"
        )
    })?;
    Ok((sources, mirror.to_owned()))
}

/// The address from which `text`, in either form of sources.list(5), takes bookworm's main archive.
fn mirror(text: &str) -> Option<&str> {
    let names_release = |words: &str| words.split_whitespace().any(|word| word == "bookworm");
    let line = text.lines().find(|line| line.starts_with("deb ") && names_release(line));
    let field = || {
        text.split("\n\n").find_map(|stanza| {
            stanza.lines().find(|line| line.starts_with("Suites:") && names_release(line))?;
            stanza.lines().find(|line| line.starts_with("URIs:"))
        })
    };
    let words = line.or_else(field)?;
    words.split_whitespace().find(|word| word.contains(":/"))
}

/// The host's own package sources, so that an image is made from where the host itself installs.
fn apt_sources() -> Option<&'static str> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("bookworm")))
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Hasher(Sha256::new());
    io::copy(&mut file, &mut hasher).with_context(|| format!("hash {}", path.display()))?;
    Ok(hex(&hasher.0.finalize()))
}

struct Hasher(Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_sources() {
        let old = "# deb http://no/debian bookworm main\ndeb http://security/x bookworm-security main\n\
                   deb [arch=amd64] http://mirror/debian bookworm main\n";
        assert_eq!(mirror(old), Some("http://mirror/debian"));
        let new = "Types: deb\nURIs: http://security/x\nSuites: bookworm-security\n\n\
                   Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n";
        assert_eq!(mirror(new), Some("http://mirror/debian"));
        assert_eq!(mirror("deb http://mirror/debian trixie main"), None);
    }
}
