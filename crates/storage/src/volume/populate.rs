//! Copy-up: what an image has at a volume's place fills the volume when it is empty.

use std::os::fd::AsFd;
use std::path::Path;

use brig_linux::path::Root;
use rustix::fs::{FileType, Mode, OFlags};

use super::Volumes;
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::tree::{Tree, WriteOptions};

impl Volumes {
    /// Copies the directory that an image has at `path` into an empty volume, with owners, modes, times and
    /// attributes, the directory's own included. Returns whether anything was copied: not into a volume that has
    /// content, nor from a path that is no directory (Docker's rules).
    ///
    /// # Errors
    /// `NotFound` for the volume; the system's.
    pub fn populate(&self, name: &str, tree: &Tree, path: impl AsRef<Path>) -> Result<bool> {
        self.inspect(name)?;
        let path = path.as_ref();
        let attempt = || format!("copy {} of the image into volume {name}", path.display());
        let data = self.shared.root.subroot(Path::new(name).join("_data")).attempt(attempt)?;
        if !data.read_dir("").attempt(attempt)?.is_empty() {
            return Ok(false);
        }
        let source = match tree.open_directory(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                return Ok(false);
            }
            other => other.attempt(attempt)?,
        };
        let copied = copy(tree, path, &data);
        if copied.is_err() {
            // Half a copy would never be completed, since the volume is not empty any more.
            drop(data.remove_contents(""));
        }
        copied.attempt(attempt)?;
        let stat = rustix::fs::fstat(&source).attempt(attempt)?;
        let read = attributes::read(source.as_fd(), &stat)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = data.open_beneath("", flags, Mode::empty()).attempt(attempt)?;
        attributes::apply(top.as_fd(), &read, FileType::Directory)?;
        attributes::set_modified(top.as_fd(), read.modified).attempt(attempt)?;
        Ok(true)
    }
}

/// One thread archives, this one extracts: nothing of the copy is in memory or twice on disk.
fn copy(tree: &Tree, path: &Path, data: &Root) -> Result<()> {
    let (mut reader, mut writer) = std::io::pipe().attempt(|| "make a pipe".into())?;
    let into = Tree::of_root(data.try_clone().attempt(|| "open the volume".into())?);
    std::thread::scope(|scope| {
        let archiver = scope.spawn(move || tree.read_tar(path.join("."), &mut writer));
        let extracted = into.write_tar("/", &mut reader, &WriteOptions::default());
        // When extraction failed, the archiver must not wait for a reader.
        drop(reader);
        let archived = archiver
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the archiving thread panicked")));
        extracted.and(archived)
    })
}
