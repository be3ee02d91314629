//! OCI image layouts as directories: what `save --format oci-dir` writes and `load` takes.
//!
//! The engine speaks archives, which are the same layout in one file; here they are taken apart and put together. What the
//! blobs are worth is the engine's to verify, as with any archive.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Largest `index.json` that is written, in bytes.
const INDEX_LIMIT: u64 = 16 << 20;
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";

/// Takes an archive apart into a directory that is new or empty. `index.json` comes last: without it a directory is no
/// layout.
pub(crate) fn unpack(archive: impl Read, directory: &Path) -> Result<()> {
    let is_new = !directory.exists();
    if !is_new {
        let mut entries =
            fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
        if entries.next().is_some() {
            bail!("{} is not empty: give a directory that is, or a new one", directory.display());
        }
    }
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let unpacked = unpack_into(archive, directory);
    if unpacked.is_err() {
        // Nothing half done stays; the cause is what matters.
        let _ = fs::remove_dir_all(directory);
        if !is_new {
            let _ = fs::create_dir(directory);
        }
    }
    unpacked
}

fn unpack_into(archive: impl Read, directory: &Path) -> Result<()> {
    let mut index = None;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let path = entry.path().context("read the archive")?.into_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if path == Path::new(INDEX) {
            let mut text = Vec::new();
            entry.by_ref().take(INDEX_LIMIT).read_to_end(&mut text).context("read the archive")?;
            index = Some(text);
        } else if is_blob(&path) || path == Path::new(LAYOUT) {
            let target = directory.join(&path);
            let mut write = || {
                fs::create_dir_all(target.parent().unwrap_or(directory))?;
                std::io::copy(&mut entry, &mut fs::File::create_new(&target)?)
            };
            write().with_context(|| format!("write {}", target.display()))?;
        }
    }
    let Some(index) = index else { bail!("the engine's archive has no {INDEX}") };
    let path = directory.join(INDEX);
    fs::write(&path, index).with_context(|| format!("write {}", path.display()))
}

/// `blobs/<algorithm>/<hex>`.
fn is_blob(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(std::ffi::OsStr::to_str).collect();
    matches!(parts.as_slice(), ["blobs", algorithm, hex]
        if algorithm.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether `directory` is a layout; says what it lacks.
pub(crate) fn check(directory: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path)
            .with_context(|| format!("{} is no OCI image layout: read {name}", directory.display()))
    };
    let layout: Value = serde_json::from_slice(&read(LAYOUT)?)
        .with_context(|| format!("read {LAYOUT} of {}", directory.display()))?;
    match layout.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => {}
        Some(other) => bail!("{} is a layout of version {other}, not 1.0.0", directory.display()),
        None => bail!("{LAYOUT} of {} tells no version", directory.display()),
    }
    read(INDEX).map(drop)
}

/// Puts a layout together as an archive.
pub(crate) fn pack(directory: &Path, writer: impl Write) -> Result<()> {
    let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(64 * 1024, writer));
    let mut files = vec![PathBuf::from(LAYOUT), PathBuf::from(INDEX)];
    let blobs = directory.join("blobs");
    for algorithm in list(&blobs)? {
        for blob in list(&blobs.join(&algorithm))? {
            files.push(Path::new("blobs").join(&algorithm).join(blob));
        }
    }
    for path in files.iter().filter(|path| path.components().count() == 1 || is_blob(path)) {
        let source = directory.join(path);
        let attempt = || format!("pack {}", source.display());
        let metadata = fs::symlink_metadata(&source).with_context(attempt)?;
        if !metadata.is_file() {
            bail!("{} is no regular file", source.display());
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(metadata.len());
        let file = fs::File::open(&source).with_context(attempt)?;
        builder.append_data(&mut header, path, file.take(metadata.len())).with_context(attempt)?;
    }
    builder.into_inner().context("finish the archive")?.flush().context("finish the archive")
}

fn list(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("list {}", directory.display()))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blobs_are_blobs() {
        assert!(is_blob(Path::new("blobs/sha256/00ff")));
        for other in ["blobs/sha256", "blobs/../x", "blobs/sha256/../x", "index.json", "/blobs/a/b"]
        {
            assert!(!is_blob(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_layout_survives_the_way_through_an_archive() {
        let work = tempfile::tempdir().unwrap();
        let (from, to) = (work.path().join("from"), work.path().join("to"));
        fs::create_dir_all(from.join("blobs/sha256")).unwrap();
        fs::write(from.join("blobs/sha256/00ff"), "blob").unwrap();
        fs::write(from.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        assert!(check(&from).is_err(), "it has no index yet");
        fs::write(from.join("index.json"), "{}").unwrap();
        check(&from).unwrap();
        let mut archive = Vec::new();
        pack(&from, &mut archive).unwrap();
        unpack(archive.as_slice(), &to).unwrap();
        assert_eq!(fs::read(to.join("blobs/sha256/00ff")).unwrap(), b"blob");
        check(&to).unwrap();
        // Never into what is there, and nothing stays of a broken one. (Between two entries an archive can end too: that it
        // was cut there is known to the connection it comes by.)
        assert!(unpack(archive.as_slice(), &to).is_err());
        let broken = work.path().join("broken");
        assert!(unpack(&archive[..archive.len() / 2 - 100], &broken).is_err());
        assert!(!broken.exists());
    }
}
