//! What belongs to which repository, in small files.
//!
//! ```text
//! repositories/<name>/_manifests/<algorithm>-<hex>     its media type
//! repositories/<name>/_blobs/<algorithm>-<hex>         empty; its time says when it was last asked for
//! repositories/<name>/_tags/<tag>                      a digest
//! repositories/<name>/_referrers/<subject>/<digest>    the descriptor of a manifest that speaks of the subject
//! ```
//!
//! A name's components start with a letter or digit, so nothing here collides with a repository below. Files are written
//! beside their place, synced and renamed; directories are synced: a name that was acknowledged is there after a crash.
//! Order of writing: manifest, referrer, tag. Order of removal: tags, referrer, manifest. A crash between leaves nothing
//! that misleads, and the request was not acknowledged.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use brig_images::{Descriptor, Digest};

use crate::error::{Error, Result};

/// How deep repositories may be nested: the longest name has so many components.
const DEPTH: usize = 128;
/// How exact the time of last use need be.
const TOUCH: Duration = Duration::from_secs(60);

/// All repositories below one directory.
#[derive(Clone, Debug)]
pub(crate) struct Repositories {
    root: PathBuf,
}

/// One repository. It need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    path: PathBuf,
}

impl Repositories {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = root.join("repositories");
        make_directory(&root)?;
        Ok(Self { root })
    }

    pub(crate) fn repository(&self, name: &str) -> Repository {
        Repository { path: self.root.join(name) }
    }

    /// The names of all repositories with a manifest, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.walk(&self.root, 0, &mut |name, repository| {
            if repository.has_manifests()? {
                names.push(name);
            }
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// Every repository, empty ones too.
    pub(crate) fn each(&self, mut visit: impl FnMut(Repository) -> Result<()>) -> Result<()> {
        self.walk(&self.root, 0, &mut |_, repository| visit(repository))
    }

    fn walk(
        &self,
        directory: &Path,
        depth: usize,
        visit: &mut dyn FnMut(String, Repository) -> Result<()>,
    ) -> Result<()> {
        if depth > DEPTH {
            return Ok(());
        }
        let mut is_repository = false;
        for name in list(directory)? {
            let path = directory.join(&name);
            if name.starts_with('_') {
                is_repository = true;
            } else if path.is_dir() {
                self.walk(&path, depth + 1, visit)?;
            }
        }
        if is_repository {
            let name = directory.strip_prefix(&self.root).unwrap_or(directory);
            let name = name.to_string_lossy().into_owned();
            visit(name, Repository { path: directory.to_owned() })?;
        }
        Ok(())
    }
}

impl Repository {
    /// Whether anything was ever put here.
    pub(crate) fn exists(&self) -> bool {
        self.path.join("_manifests").is_dir() || self.path.join("_blobs").is_dir()
    }

    fn has_manifests(&self) -> Result<bool> {
        Ok(!list(&self.path.join("_manifests"))?.is_empty())
    }

    /// What a tag stands for.
    pub(crate) fn tag(&self, tag: &str) -> Result<Option<Digest>> {
        let text = read(&self.path.join("_tags").join(tag))?;
        Ok(text.and_then(|text| Digest::parse(text.trim()).ok()))
    }

    pub(crate) fn set_tag(&self, tag: &str, digest: &Digest) -> Result<()> {
        write(&self.path.join("_tags"), tag, digest.to_string().as_bytes())
    }

    /// Removes a tag; says whether there was one.
    pub(crate) fn remove_tag(&self, tag: &str) -> Result<bool> {
        remove(&self.path.join("_tags"), tag)
    }

    /// All tags, sorted.
    pub(crate) fn tags(&self) -> Result<Vec<String>> {
        let mut tags = list(&self.path.join("_tags"))?;
        tags.sort();
        Ok(tags)
    }

    /// The media type of a manifest that is here.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Option<String>> {
        read(&self.path.join("_manifests").join(file_name(digest)))
    }

    pub(crate) fn add_manifest(&self, digest: &Digest, media_type: &str) -> Result<()> {
        write(&self.path.join("_manifests"), &file_name(digest), media_type.as_bytes())
    }

    /// Removes a manifest with its tags; says whether it was here. `subject` is what it speaks of.
    pub(crate) fn remove_manifest(
        &self,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> Result<bool> {
        for tag in self.tags()? {
            if self.tag(&tag)?.as_ref() == Some(digest) {
                self.remove_tag(&tag)?;
            }
        }
        if let Some(subject) = subject {
            remove(&self.referrers_of(subject), &file_name(digest))?;
        }
        remove(&self.path.join("_manifests"), &file_name(digest))
    }

    /// The manifests that are here.
    pub(crate) fn manifests(&self) -> Result<Vec<Digest>> {
        let names = list(&self.path.join("_manifests"))?;
        Ok(names.iter().filter_map(|name| parse_file_name(name)).collect())
    }

    /// The manifests that are here, and how long ago each was last put or asked for as a cached one.
    pub(crate) fn manifest_ages(&self) -> Result<Vec<(Digest, Duration)>> {
        ages(&self.path.join("_manifests"))
    }

    /// Notes that a cached manifest is asked for.
    pub(crate) fn touch_manifest(&self, digest: &Digest) -> Result<()> {
        touch(&self.path.join("_manifests").join(file_name(digest))).map(drop)
    }

    /// Whether a blob belongs here. Asking keeps it for another grace: who sees a blob relies on it.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        touch(&self.path.join("_blobs").join(file_name(digest)))
    }

    pub(crate) fn add_blob(&self, digest: &Digest) -> Result<()> {
        write(&self.path.join("_blobs"), &file_name(digest), b"")
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        remove(&self.path.join("_blobs"), &file_name(digest))
    }

    /// The blobs that belong here, and how long ago each was last asked for.
    pub(crate) fn blobs(&self) -> Result<Vec<(Digest, Duration)>> {
        ages(&self.path.join("_blobs"))
    }

    pub(crate) fn add_referrer(&self, subject: &Digest, referrer: &Descriptor) -> Result<()> {
        let text = serde_json::to_vec(referrer).map_err(|source| {
            Error::caused(crate::ErrorKind::Io, "write a referrer's descriptor", source)
        })?;
        write(&self.referrers_of(subject), &file_name(&referrer.digest), &text)
    }

    /// What speaks of `subject`, sorted by digest.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let directory = self.referrers_of(subject);
        let mut names = list(&directory)?;
        names.sort();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let Some(text) = read(&directory.join(name))? else { continue };
            found.extend(serde_json::from_str::<Descriptor>(&text).ok());
        }
        Ok(found)
    }

    fn referrers_of(&self, subject: &Digest) -> PathBuf {
        self.path.join("_referrers").join(file_name(subject))
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

fn parse_file_name(name: &str) -> Option<Digest> {
    Digest::parse(&name.replacen('-', ":", 1)).ok()
}

/// Brings a file's time up to date; false if it is not there.
fn touch(path: &Path) -> Result<bool> {
    let modified = match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => modified,
        Err(error) if is_absent(&error) => return Ok(false),
        Err(source) => return Err(Error::io("look at", path, source)),
    };
    if modified.elapsed().is_ok_and(|age| age < TOUCH) {
        return Ok(true);
    }
    match File::options().write(true).open(path) {
        Ok(file) => {
            let touched = file.set_modified(SystemTime::now());
            touched.map_err(|source| Error::io("touch", path, source))?;
            Ok(true)
        }
        Err(error) if is_absent(&error) => Ok(false),
        Err(source) => Err(Error::io("open", path, source)),
    }
}

/// The digests that files in a directory are named after, and the files' ages.
fn ages(directory: &Path) -> Result<Vec<(Digest, Duration)>> {
    let mut found = Vec::new();
    for name in list(directory)? {
        let Some(digest) = parse_file_name(&name) else { continue };
        let modified = fs::metadata(directory.join(&name)).and_then(|m| m.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        // A clock that went back makes everything young, which is safe.
        found.push((digest, age.unwrap_or_default()));
    }
    Ok(found)
}

/// The names in a directory, without those that are being written. A directory that is not there is empty.
pub(crate) fn list(directory: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::io("list", directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    Ok(names)
}

/// A small file's text; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(Error::io("read", path, source)),
    }
}

/// Puts a file in place, durably. One that says the same already is left alone, its time brought up to date.
pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    if fs::read(&path).is_ok_and(|known| known == bytes) {
        let touched = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if touched.is_ok() {
            return Ok(());
        }
    }
    make_directory(directory)?;
    let put = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(directory)?.sync_all()
    };
    put().map_err(|source| Error::io("write", &path, source))
}

/// Removes a file, durably; says whether it was there.
pub(crate) fn remove(directory: &Path, name: &str) -> Result<bool> {
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Ok(()) => {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|source| Error::io("sync directory", directory, source))?;
            Ok(true)
        }
        Err(error) if is_absent(&error) => Ok(false),
        Err(source) => Err(Error::io("remove", &path, source)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a directory and those above it, each name durable.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_directory(parent)?;
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let synced = made.and_then(|()| File::open(parent)?.sync_all());
    synced.map_err(|source| Error::io("create directory", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_goes_with_its_tags_and_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let all = Repositories::open(directory.path()).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let repository = all.repository("a/b");
        assert!(!repository.exists() && all.names().unwrap().is_empty());
        repository.add_manifest(&one, "type/one").unwrap();
        repository.add_manifest(&two, "type/two").unwrap();
        for (tag, digest) in [("x", &one), ("y", &two), ("z", &one)] {
            repository.set_tag(tag, digest).unwrap();
        }
        let referrer = Descriptor::new("type/two", two.clone(), 3);
        repository.add_referrer(&one, &referrer).unwrap();
        assert_eq!(repository.referrers(&one).unwrap(), [referrer]);
        assert_eq!(all.names().unwrap(), ["a/b"]);
        assert!(repository.remove_manifest(&one, None).unwrap());
        assert!(!repository.remove_manifest(&one, None).unwrap());
        assert_eq!(repository.tags().unwrap(), ["y"]);
        assert!(repository.remove_manifest(&two, Some(&one)).unwrap());
        assert!(repository.referrers(&one).unwrap().is_empty());
    }

    #[test]
    fn what_is_half_written_is_not_seen() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repositories::open(directory.path()).unwrap().repository("a");
        repository.set_tag("x", &Digest::of(b"")).unwrap();
        fs::write(directory.path().join("repositories/a/_tags/.new-1"), "").unwrap();
        assert_eq!(repository.tags().unwrap(), ["x"]);
        assert!(repository.remove_tag("x").unwrap() && !repository.remove_tag("x").unwrap());
    }
}
