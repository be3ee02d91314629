//! Writing an archive to disk, by descriptors only.
//!
//! Every entry is one name in an open parent directory. Nothing is opened through a path that an entry could have
//! turned into a link: files are created with `O_EXCL | O_NOFOLLOW`, links are made and never followed, and what is in
//! the way is removed first. Directories get their times when all is written.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use brig_linux::path::{Root, file_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::attributes;
use super::directories::DirectoryCache;
use super::target::{LayerTarget, Target};
use super::{OPAQUE_NAME, WHITEOUT_PREFIX, is_bookkeeping, is_whiteout};
use crate::error::{Attempt, Error, ErrorKind, Result};
use crate::tarball::reader::TarReader;
use crate::tarball::{Attributes, Entry, EntryKind, Limits, Time};
use crate::tree::busy;

/// How often a name is cleared and created again when somebody keeps putting something there.
const CREATE_ATTEMPTS: u32 = 16;

/// How much content is read and written at once.
const BUFFER_BYTES: usize = 128 << 10;

/// What an archive put on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The files' sizes together, in bytes, as Docker counts a layer's size.
    pub size: u64,
    /// How many entries the archive had.
    pub entries: u64,
}

/// Writes a whole archive and reads its stream to the end.
pub(crate) fn extract(
    stream: &mut dyn Read,
    target: &mut Target<'_>,
    limits: &Limits,
) -> Result<Applied> {
    // Headers are small; contents of the buffer's size and more pass it by.
    let mut reader = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, stream), limits);
    let mut extractor = Extractor {
        target,
        parents: DirectoryCache::default(),
        directory_times: BTreeMap::new(),
        applied: Applied::default(),
        buffer: vec![0; BUFFER_BYTES],
    };
    while let Some(entry) = reader.next()? {
        extractor.applied.entries += 1;
        extractor
            .place(&entry, &mut reader)
            .attempt(|| format!("extract {}", entry.path.display()))?;
    }
    extractor.finish()?;
    let applied = extractor.applied;
    reader.drain()?;
    Ok(applied)
}

struct Extractor<'a, 'b> {
    target: &'a mut Target<'b>,
    parents: DirectoryCache,
    directory_times: BTreeMap<PathBuf, Time>,
    applied: Applied,
    buffer: Vec<u8>,
}

impl Extractor<'_, '_> {
    fn place<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<()> {
        let Some(name) = entry.path.file_name() else { return self.root(entry) };
        let directory = entry.path.parent().unwrap_or_else(|| Path::new(""));
        if let Target::Layer(layer) = self.target {
            if is_bookkeeping(directory) {
                return Ok(());
            }
            if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
                return whiteout(layer, directory, name, OsStr::from_bytes(hidden));
            }
            if matches!(entry.kind, EntryKind::CharacterDevice(0, 0)) {
                return Err(Error::integrity("device 0:0 would hide a file in overlayfs"));
            }
        }
        if let Target::Tree(target) = &self.target {
            let path = target.base.join(&entry.path);
            target.tree.check_attached(&path, entry.kind == EntryKind::Directory)?;
        }
        let parent = self.parent(directory)?;
        let attributes = &self.effective(&entry.attributes);
        match &entry.kind {
            EntryKind::Directory => self.directory(&entry.path, &parent, name, attributes),
            EntryKind::File { .. } => self.file(entry, &parent, name, attributes, reader),
            EntryKind::Symlink(text) => {
                self.create(&parent, name, FileType::Symlink, |parent, name| {
                    rustix::fs::symlinkat(text, parent, name)
                })?;
                finish_name(parent.as_fd(), name, FileType::Symlink, attributes)
            }
            EntryKind::HardLink(existing) => self.hard_link(existing, &entry.path, &parent, name),
            EntryKind::CharacterDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(&parent, name, FileType::CharacterDevice, device, attributes)
            }
            EntryKind::BlockDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(&parent, name, FileType::BlockDevice, device, attributes)
            }
            EntryKind::Fifo => self.node(&parent, name, FileType::Fifo, 0, attributes),
        }
    }

    /// The entry for the top directory itself.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::integrity("the archive's root is not a directory"));
        }
        // As Docker: copying into a directory leaves the directory itself as it is.
        let Target::Layer(layer) = self.target else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = layer
            .root
            .open_beneath("", flags, Mode::empty())
            .attempt(|| "open the layer".into())?;
        attributes::apply(root.as_fd(), &entry.attributes, FileType::Directory)?;
        layer.root_described = true;
        self.directory_times.insert(PathBuf::new(), entry.attributes.modified);
        Ok(())
    }

    fn effective(&self, attributes: &Attributes) -> Attributes {
        let mut attributes = attributes.clone();
        if let Target::Tree(target) = &self.target
            && let Some((uid, gid)) = target.options.owner
        {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        attributes
    }

    /// The mode something is created with. A layer is nobody's yet, so there it is the final one, but for the bits that
    /// only count with the right owner; in a container's tree it is private until the owner is right.
    fn first_mode(&self, attributes: &Attributes, private: u32) -> Mode {
        Mode::from_raw_mode(match self.target {
            Target::Layer(_) => attributes.mode & 0o777,
            Target::Tree(_) => private,
        })
    }

    fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        if let Some(open) = self.parents.find(path) {
            return Ok(open);
        }
        let fd = self.target.directory(path)?;
        Ok(self.parents.insert(path, fd))
    }

    fn directory(
        &mut self,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<()> {
        let attempt = || format!("create directory {}", name.display());
        let mut replaced = false;
        let mut attempts = CREATE_ATTEMPTS;
        let mode = self.first_mode(attributes, 0o700);
        while let Err(errno) = rustix::fs::mkdirat(parent, name, mode) {
            if errno != Errno::EXIST || attempts == 0 {
                return Err(errno).attempt(attempt);
            }
            attempts -= 1;
            if self.kind_at(parent, name)? == Some(FileType::Directory) {
                break;
            }
            self.clear_way(parent, name, FileType::Directory)?;
            replaced = true;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty()).attempt(attempt)?;
        attributes::apply(made.as_fd(), attributes, FileType::Directory)?;
        if replaced && matches!(self.target, Target::Layer(_)) {
            // What was there before, a whiteout included, hid the directory below; so must this one.
            attributes::set_opaque(&made).attempt(attempt)?;
        }
        self.directory_times.insert(path.to_owned(), attributes.modified);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        attributes: &Attributes,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        let EntryKind::File { size, sparse } = &entry.kind else { return Ok(()) };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mode = self.first_mode(attributes, 0o600);
        let fd = self.create(parent, name, FileType::RegularFile, |parent, name| {
            rustix::fs::openat(parent, name, flags | OFlags::CLOEXEC, mode)
        })?;
        let mut file = File::from(fd);
        let attempt = || format!("write {}", name.display());
        match sparse {
            None => self.copy(&mut reader.content(), &mut file, *size).attempt(attempt)?,
            Some(pieces) => {
                for piece in pieces {
                    file.seek(SeekFrom::Start(piece.offset)).attempt(attempt)?;
                    self.copy(&mut reader.content(), &mut file, piece.length).attempt(attempt)?;
                }
                file.set_len(*size).attempt(attempt)?;
            }
        }
        self.applied.size = self.applied.size.saturating_add(*size);
        attributes::apply(file.as_fd(), attributes, FileType::RegularFile)
    }

    fn copy(&mut self, from: &mut impl Read, to: &mut File, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = match from.read(&mut self.buffer[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            to.write_all(&self.buffer[..read])?;
            left -= u64::try_from(read).unwrap_or(left);
        }
        Ok(())
    }

    fn node(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        kind: FileType,
        device: u64,
        attributes: &Attributes,
    ) -> Result<()> {
        self.create(parent, name, kind, |parent, name| {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        finish_name(parent.as_fd(), name, kind, attributes)
    }

    fn hard_link(
        &mut self,
        existing: &Path,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<()> {
        let attempt = || format!("link to {}", existing.display());
        if existing == path {
            return Ok(());
        }
        let (from, from_name) = self.link_source(existing).attempt(attempt)?;
        let stat =
            rustix::fs::statat(&from, &from_name, AtFlags::SYMLINK_NOFOLLOW).attempt(attempt)?;
        if is_whiteout(&stat) || file_type(&stat) == FileType::Directory {
            return Err(Error::integrity(format!(
                "hard link to {}, which is no file",
                existing.display()
            )));
        }
        self.create(parent, name, file_type(&stat), |parent, name| {
            rustix::fs::linkat(&from, &from_name, parent, name, AtFlags::empty())
        })
    }

    /// The name that a hard link is to point to, in its directory.
    fn link_source(&mut self, existing: &Path) -> Result<(OwnedFd, OsString)> {
        let not_named = || Error::integrity("a hard link points to the archive's root");
        let name = existing.file_name().ok_or_else(not_named)?.to_owned();
        match self.target {
            Target::Tree(target) => target.tree.parent_of(&target.base.join(existing)),
            Target::Layer(layer) => {
                let parent = existing.parent().unwrap_or_else(|| Path::new(""));
                let (directory, canonical) = layer.locate(parent)?;
                match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => {}
                    // Only the layers below have it: bring it up first, as overlayfs does.
                    Err(Errno::NOENT) => copy_up(layer, &canonical.join(&name), &directory, &name)?,
                    Err(errno) => return Err(errno).attempt(|| "look at the target".into()),
                }
                Ok((directory, name))
            }
        }
    }

    /// Creates a name that is not a directory, making way for it.
    fn create<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        kind: FileType,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let mut attempts = CREATE_ATTEMPTS;
        loop {
            match make(parent.as_fd(), name) {
                Err(Errno::EXIST) if attempts > 0 => attempts -= 1,
                other => return other.attempt(|| format!("create {}", name.display())),
            }
            self.clear_way(parent, name, kind)?;
        }
    }

    /// Removes what is at a name.
    fn clear_way(&mut self, parent: &OwnedFd, name: &OsStr, kind: FileType) -> Result<()> {
        let Some(present) = self.kind_at(parent, name)? else { return Ok(()) };
        let is_directory = present == FileType::Directory;
        if let Target::Tree(target) = &self.target
            && target.options.keep_kind
            && is_directory != (kind == FileType::Directory)
        {
            let (old, new) =
                if is_directory { ("directory", "a file") } else { ("file", "a directory") };
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("cannot overwrite {old} {} with {new}", name.display()),
            ));
        }
        let attempt = || format!("replace {}", name.display());
        // The kernel would let us: of another namespace it unmounts what is in the way.
        if matches!(self.target, Target::Tree(_)) && is_mounted(parent, name).attempt(attempt)? {
            return Err(busy(Path::new(name)));
        }
        if is_directory {
            // Open descriptors may be of directories that vanish now.
            self.parents.clear();
        }
        let parent = parent.try_clone().attempt(attempt)?;
        Root::from_fd(parent).and_then(|parent| parent.remove_all(name)).attempt(attempt)
    }

    fn kind_at(&self, parent: &OwnedFd, name: &OsStr) -> Result<Option<FileType>> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(file_type(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).attempt(|| format!("look at {}", name.display())),
        }
    }

    fn finish(&mut self) -> Result<()> {
        if let Target::Layer(layer) = self.target {
            if layer.root_is_opaque {
                hide_all_below(layer)?;
            }
            for (path, time) in layer.copied.drain(..) {
                self.directory_times.entry(path).or_insert(time);
            }
        }
        for (path, time) in &self.directory_times {
            let found = match self.target {
                Target::Layer(layer) => layer.root.resolve_nofollow(path),
                Target::Tree(target) => match target.tree.parent_of(&target.base.join(path)) {
                    Ok((parent, name)) => {
                        attributes::open_name(parent.as_fd(), &name).map_err(|errno| {
                            brig_linux::Error::system(format!("open {}", path.display()), errno)
                        })
                    }
                    Err(_) => continue,
                },
            };
            // It may have been replaced by a later entry, or by the container.
            let Ok(found) = found else { continue };
            let stat = rustix::fs::fstat(&found).attempt(|| format!("stat {}", path.display()))?;
            if file_type(&stat) == FileType::Directory {
                attributes::set_modified(found.as_fd(), *time)
                    .attempt(|| format!("set the time of {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Whether something is mounted at a name (statx(2), Linux 5.8).
fn is_mounted(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(parent, name, flags, StatxFlags::TYPE) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn finish_name(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    attributes: &Attributes,
) -> Result<()> {
    let attempt = || format!("open {}", name.display());
    let fd = attributes::open_name(parent, name).attempt(attempt)?;
    let stat = rustix::fs::fstat(&fd).attempt(attempt)?;
    if file_type(&stat) != kind {
        // Only possible in a tree that a container is changing; touch nothing of its making.
        return Err(Errno::BUSY).attempt(attempt);
    }
    attributes::apply(fd.as_fd(), attributes, kind)
}

/// Handles a `.wh.` entry. It hides what the layers below have, never what this layer has (OCI image-spec, layer.md).
fn whiteout(
    layer: &mut LayerTarget<'_>,
    directory: &Path,
    name: &OsStr,
    hidden: &OsStr,
) -> Result<()> {
    let attempt = || format!("hide {}", directory.join(hidden).display());
    if name == OPAQUE_NAME {
        if directory.as_os_str().is_empty() {
            layer.root_is_opaque = true;
            return Ok(());
        }
        let (fd, _) = layer.locate(directory)?;
        return attributes::set_opaque(&fd).attempt(attempt);
    }
    if is_bookkeeping(Path::new(name)) {
        return Ok(());
    }
    if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
        return Err(Error::integrity(format!(
            "whiteout {} does not name a file",
            directory.join(name).display()
        )));
    }
    let (parent, canonical) = layer.locate(directory)?;
    hide(layer, &parent, &canonical.join(hidden), hidden)
}

fn hide(layer: &LayerTarget<'_>, parent: &OwnedFd, path: &Path, name: &OsStr) -> Result<()> {
    let attempt = || format!("hide {}", path.display());
    match attributes::open_name(parent.as_fd(), name) {
        Ok(found) => {
            let stat = rustix::fs::fstat(&found).attempt(attempt)?;
            if file_type(&stat) == FileType::Directory {
                attributes::set_opaque(&found).attempt(attempt)?;
            }
            return Ok(());
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).attempt(attempt),
    }
    // A mark without anything to hide would show up as a device in a directory that is not merged.
    if layer.lower.find(path)?.is_none() {
        return Ok(());
    }
    rustix::fs::mknodat(
        parent,
        name,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        rustix::fs::makedev(0, 0),
    )
    .attempt(attempt)
}

/// An opaque root: each name of the layers below is hidden by itself.
fn hide_all_below(layer: &LayerTarget<'_>) -> Result<()> {
    let root = layer
        .root
        .open_beneath("", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .attempt(|| "open the layer".into())?;
    for name in layer.lower.names(Path::new(""))? {
        hide(layer, &root, Path::new(&name), &name)?;
    }
    Ok(())
}

/// Copies a file of the layers below into this one.
fn copy_up(layer: &LayerTarget<'_>, path: &Path, parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let attempt = || format!("copy {} from the layer below", path.display());
    let below = layer.lower.find(path)?.ok_or(Errno::NOENT).attempt(attempt)?;
    let copied = attributes::read(below.fd.as_fd(), &below.stat)?;
    match file_type(&below.stat) {
        FileType::RegularFile => {
            let source = attributes::magic_path(below.fd.as_fd());
            let mut source = File::open(source).attempt(attempt)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
                .attempt(attempt)?;
            let mut made = File::from(made);
            io::copy(&mut source, &mut made).attempt(attempt)?;
            attributes::apply(made.as_fd(), &copied, FileType::RegularFile)
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(&below.fd, "", Vec::new()).attempt(attempt)?;
            rustix::fs::symlinkat(&text, parent, name).attempt(attempt)?;
            finish_name(parent.as_fd(), name, FileType::Symlink, &copied)
        }
        _ => Err(Error::integrity("a hard link points to a directory or device of a layer below")),
    }
}
