//! Reading a tree: stat and archive, as `HEAD` and `GET /containers/ID/archive` want them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use brig_linux::path::file_type;
use rustix::fs::FileType;

use super::{Tree, stat_fd};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::layer::attributes;
use crate::tarball::writer::{TarWriter, write_node};

/// How deep a tree is archived.
const DEPTH_MAX: usize = 1000;

/// What is at a path; the fields of Docker's `X-Docker-Container-Path-Stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last name of the asked path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode`: file type and permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified_seconds: i64,
    /// Nanoseconds of the modification time.
    pub modified_nanoseconds: u32,
    /// For a link: where it leads inside the container, absolute.
    pub link_target: Option<PathBuf>,
}

impl PathStat {
    /// The mode as Go's `os.FileMode` encodes it, which is what the Engine API sends.
    #[must_use]
    pub fn go_file_mode(&self) -> u32 {
        let kind = match FileType::from_raw_mode(self.mode) {
            FileType::Directory => 1 << 31,
            FileType::Symlink => 1 << 27,
            FileType::BlockDevice => 1 << 26,
            FileType::CharacterDevice => (1 << 26) | (1 << 21),
            FileType::Fifo => 1 << 25,
            FileType::Socket => 1 << 24,
            FileType::RegularFile | FileType::Unknown => 0,
        };
        let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
        special
            .into_iter()
            .filter(|(bit, _)| self.mode & bit != 0)
            .fold(kind | (self.mode & 0o777), |mode, (_, go)| mode | go)
    }
}

impl Tree {
    /// What is at a path. A final link is told itself, unless the path ends in `/` or `/.`.
    ///
    /// # Errors
    /// `NotFound`, naming the path.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<PathStat> {
        let asked = path.as_ref();
        let canonical = self.canonical(asked, names_a_directory(asked))?;
        let node = self.node(&canonical)?;
        let stat = stat_fd(node.as_fd(), &canonical)?;
        let link_target = if file_type(&stat) == FileType::Symlink {
            Some(self.canonical(asked, true)?)
        } else {
            None
        };
        let modified = attributes::modified(&stat);
        Ok(PathStat {
            name: last_name(asked),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            modified_seconds: modified.seconds,
            modified_nanoseconds: modified.nanoseconds,
            link_target,
        })
    }

    /// Writes what is at a path, and all beneath it, as an archive whose top entry has the path's last name (`.` for a
    /// path that ends in `/.`). A final link is archived itself unless the path ends in `/` or `/.`.
    ///
    /// # Errors
    /// `NotFound`; the writer's.
    pub fn read_tar(&self, path: impl AsRef<Path>, output: &mut impl Write) -> Result<()> {
        let asked = path.as_ref();
        let canonical = self.canonical(asked, names_a_directory(asked))?;
        let name = last_name(asked);
        let top = if name == "." || name == "/" { PathBuf::new() } else { PathBuf::from(name) };
        let mut archive =
            Archive { tree: self, tar: TarWriter::new(output), links: HashMap::new() };
        archive.add(&canonical, &top, DEPTH_MAX)?;
        archive.tar.finish()
    }

    /// Writes the whole tree as an archive, without the volumes, as `docker export` does.
    ///
    /// # Errors
    /// The system's; the writer's.
    pub fn export(&self, output: &mut impl Write) -> Result<()> {
        let root = self.root.try_clone().attempt(|| "export the container".into())?;
        let bare = Self { root, attachments: Vec::new() };
        bare.read_tar("/", output)
    }
}

struct Archive<'a, W> {
    tree: &'a Tree,
    tar: TarWriter<W>,
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, path: &Path, name: &Path, depth_left: usize) -> Result<()> {
        let node = self.tree.node(path)?;
        write_node(&mut self.tar, &node, name, &mut self.links)?;
        if file_type(&stat_fd(node.as_fd(), path)?) != FileType::Directory {
            return Ok(());
        }
        if depth_left == 0 {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("{} is deeper than {DEPTH_MAX} directories", path.display()),
            ));
        }
        for entry in self.tree.directory_names(path, &node)? {
            match self.add(&path.join(&entry), &name.join(&entry), depth_left - 1) {
                // A running container may remove files while we read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Reads a file that is attached by itself (a bind of one file).
pub(super) fn read_descriptor(file: BorrowedFd<'_>, limit_bytes: u64) -> Result<Vec<u8>> {
    let stat = stat_fd(file, Path::new("bind"))?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let attempt = || "read the file".to_owned();
    let open = File::open(attributes::magic_path(file)).attempt(attempt)?;
    let mut content = Vec::new();
    open.take(limit_bytes.saturating_add(1)).read_to_end(&mut content).attempt(attempt)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit_bytes {
        let problem = format!("the file is larger than {limit_bytes} bytes");
        return Err(Error::new(ErrorKind::Exhausted, problem));
    }
    Ok(content)
}

fn names_a_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}

/// As Go's `filepath.Base`, with a final `.` kept.
fn last_name(path: &Path) -> String {
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        return ".".into();
    }
    path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned())
}
