//! Images for tests: busybox, and whatever layers a test has.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's static busybox, where it is installed.
#[must_use]
pub fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Packs busybox and its applets in the form `docker save` writes.
///
/// # Panics
/// busybox-static is not installed, or the archive cannot be written.
pub fn pack_busybox(archive: &Path) {
    pack_image(archive, "busybox", &[busybox_layer()]);
}

/// A layer with busybox and its applets.
///
/// # Panics
/// busybox-static is not installed.
#[must_use]
pub fn busybox_layer() -> Vec<u8> {
    let busybox = busybox().unwrap();
    let applets = Command::new(&busybox).arg("--list").output().unwrap().stdout;
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        match link {
            Some(link) => layer.append_link(&mut header, path, link).unwrap(),
            None => layer.append_data(&mut header, path, data).unwrap(),
        }
    };
    for directory in ["bin/", "etc/", "tmp/"] {
        add(directory, tar::EntryType::Directory, 0o755, b"", None);
    }
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n",
        None,
    );
    add("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nme:x:1000:\n", None);
    add("bin/busybox", tar::EntryType::Regular, 0o755, &fs::read(&busybox).unwrap(), None);
    for applet in
        String::from_utf8(applets).unwrap().split_whitespace().filter(|name| *name != "busybox")
    {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, b"", Some("busybox"));
    }
    layer.into_inner().unwrap()
}

/// Packs layers, the lowest first, as an image in the form `docker save` writes.
///
/// # Panics
/// The archive cannot be written.
pub fn pack_image(archive: &Path, name: &str, layers: &[Vec<u8>]) {
    pack_image_that_runs(archive, name, layers, &["sh"]);
}

/// The same, with a command of one's own.
///
/// # Panics
/// The archive cannot be written.
pub fn pack_image_that_runs(archive: &Path, name: &str, layers: &[Vec<u8>], command: &[&str]) {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let names: Vec<String> = (0..layers.len()).map(|at| format!("layer{at}.tar")).collect();
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [format!("{name}:latest")], "Layers": names }
    ]);
    let documents = [("manifest.json", manifest.to_string()), ("config.json", config.to_string())];
    let documents = documents.iter().map(|(name, text)| (*name, text.as_bytes()));
    let layers = names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice));
    let mut outer = tar::Builder::new(fs::File::create(archive).unwrap());
    for (name, data) in documents.chain(layers) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        outer.append_data(&mut header, name, data).unwrap();
    }
    outer.into_inner().unwrap().flush().unwrap();
}

pub(super) fn sha256(data: &[u8]) -> String {
    use std::fmt::Write as _;

    use sha2::Digest as _;
    sha2::Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
