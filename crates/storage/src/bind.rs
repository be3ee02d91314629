//! Sources of bind mounts: a path of the host, resolved once. What is mounted later is the descriptor, so a path that
//! changes in between changes nothing.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use brig_linux::path::{Root, file_type};
use rustix::fs::{FileType, Mode};

use crate::error::{Attempt, Error, ErrorKind, Result};

/// What happens when the source is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingSource {
    /// A directory is created, as `docker run -v` does.
    CreateDirectory,
    /// It is an error, as with `docker run --mount`.
    Refuse,
}

/// A resolved source.
#[derive(Debug)]
pub struct BindSource {
    /// The path as asked for.
    pub path: PathBuf,
    /// An `O_PATH` descriptor of what it was when resolved.
    pub fd: OwnedFd,
    /// Whether it is a directory; else the target must be a file.
    pub is_directory: bool,
}

/// Resolves the source of a bind mount on the host.
///
/// # Errors
/// `InvalidInput` for a path that is not absolute; `NotFound` when it is missing and shall not be created.
pub fn resolve_bind(source: &Path, missing: MissingSource) -> Result<BindSource> {
    if !source.is_absolute() || source.components().any(|part| part == Component::ParentDir) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("bind source {} is not an absolute path without ..", source.display()),
        ));
    }
    let attempt = || format!("resolve bind source {}", source.display());
    let host = Root::open("/").attempt(attempt)?;
    let fd = match (host.resolve(source), missing) {
        (Err(error), MissingSource::CreateDirectory) if error.kind() == ErrorKind::NotFound => {
            host.create_dir_all(source, Mode::from_raw_mode(0o755)).attempt(attempt)?
        }
        (Err(error), MissingSource::Refuse) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("bind source path does not exist: {}", source.display()),
            ));
        }
        (resolved, _) => resolved.attempt(attempt)?,
    };
    let stat = rustix::fs::fstat(&fd).attempt(attempt)?;
    let is_directory = file_type(&stat) == FileType::Directory;
    Ok(BindSource { path: source.to_owned(), fd, is_directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_is_created_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let error = resolve_bind(&path, MissingSource::Refuse).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(resolve_bind(&path, MissingSource::CreateDirectory).unwrap().is_directory);
        std::fs::write(path.join("file"), "").unwrap();
        let file = resolve_bind(&path.join("file"), MissingSource::Refuse).unwrap();
        assert!(!file.is_directory);
        for path in ["relative", "/tmp/../etc"] {
            let error = resolve_bind(Path::new(path), MissingSource::Refuse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
    }
}
