//! A reproducible archive writer: the same files give the same bytes.
//!
//! Ustar headers, with pax records only for what does not fit (long names, large numbers, nanoseconds, attributes).
//! No user names, access times or anything else that differs between machines.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use brig_linux::path::file_type;
use rustix::fs::{FileType, Stat};
use tar::{EntryType, Header};

use super::{Attributes, Time};
use crate::error::{Attempt, Error, Result};
use crate::layer::attributes;

/// Writes entries to a stream.
pub(crate) struct TarWriter<W> {
    output: W,
}

/// The parts of a header that are not attributes.
struct Head<'a> {
    path: &'a [u8],
    kind: EntryType,
    size: u64,
    link: &'a [u8],
    device: Option<(u32, u32)>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output }
    }

    /// An empty file whose name hides another.
    pub(crate) fn whiteout(&mut self, path: &Path) -> Result<()> {
        let head = Head {
            path: path.as_os_str().as_bytes(),
            kind: EntryType::Regular,
            size: 0,
            link: b"",
            device: None,
        };
        self.header(&head, &Attributes::default())
    }

    /// The two blocks of zeros that end an archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.write(&[0; 1024])?;
        self.output.flush().attempt(|| "write the archive".into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).attempt(|| "write the archive".into())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % 512).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.write(&[0; 512][over..]) }
    }

    fn header(&mut self, head: &Head<'_>, attributes: &Attributes) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        // Readers without pax see a shortened name.
        let shown = head.path.len().min(100);
        header.as_old_mut().name[..shown].copy_from_slice(&head.path[..shown]);
        if head.path.len() > shown {
            record(&mut records, b"path", head.path);
        }
        if !head.link.is_empty() && header.set_link_name_literal(head.link).is_err() {
            record(&mut records, b"linkpath", head.link);
        }
        // Eleven octal digits.
        if head.size >= 1 << 33 {
            record(&mut records, b"size", head.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], attributes.uid), (b"gid", attributes.gid)] {
            if id >= 1 << 21 {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        let time = attributes.modified;
        let plain = time.nanoseconds == 0 && (0..1 << 33).contains(&time.seconds);
        if !plain {
            record(&mut records, b"mtime", decimal(time).as_bytes());
        }
        for (name, value) in &attributes.xattrs {
            let key = [b"SCHILY.xattr.", name.as_bytes()].concat();
            record(&mut records, &key, value);
        }
        if !records.is_empty() {
            self.records(&records)?;
        }
        header.set_entry_type(head.kind);
        header.set_size(head.size & ((1 << 33) - 1));
        header.set_mode(attributes.mode);
        header.set_uid(u64::from(attributes.uid) & ((1 << 21) - 1));
        header.set_gid(u64::from(attributes.gid) & ((1 << 21) - 1));
        header.set_mtime(u64::try_from(time.seconds).unwrap_or(0) & ((1 << 33) - 1));
        if let Some((major, minor)) = head.device {
            header.set_device_major(major).attempt(|| "write a device number".into())?;
            header.set_device_minor(minor).attempt(|| "write a device number".into())?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn records(&mut self, records: &[u8]) -> Result<()> {
        let size = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let mut header = Header::new_ustar();
        header.set_path("pax").attempt(|| "write a pax header".into())?;
        header.set_entry_type(EntryType::XHeader);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(records)?;
        self.pad(size)
    }

    /// A file's bytes: exactly `size`, even when somebody truncates the file meanwhile.
    fn content(&mut self, file: &mut File, size: u64, path: &Path) -> Result<()> {
        let attempt = || format!("archive {}", path.display());
        let copied = io::copy(&mut file.take(size), &mut self.output).attempt(attempt)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.output).attempt(attempt)?;
        self.pad(size)
    }
}

/// Adds whatever an `O_PATH` descriptor points to under a path. Sockets cannot be archived and are left out. A file
/// with several names is stored at its first; `links` remembers that.
pub(crate) fn write_node<W: Write>(
    tar: &mut TarWriter<W>,
    node: &OwnedFd,
    path: &Path,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> Result<()> {
    let attempt = || format!("archive {}", path.display());
    let stat = rustix::fs::fstat(node).attempt(attempt)?;
    let read = attributes::read(node.as_fd(), &stat).attempt(attempt)?;
    let kind = file_type(&stat);
    if kind != FileType::Directory && stat.st_nlink > 1 {
        if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
            let head = Head {
                path: path.as_os_str().as_bytes(),
                kind: EntryType::Link,
                size: 0,
                link: first.as_os_str().as_bytes(),
                device: None,
            };
            // The target carries the attributes.
            return tar.header(&head, &Attributes { xattrs: Vec::new(), ..read });
        }
        links.insert((stat.st_dev, stat.st_ino), path.to_owned());
    }
    match kind {
        FileType::RegularFile => {
            let mut file = File::open(attributes::magic_path(node.as_fd())).attempt(attempt)?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            tar.header(&head(path.as_os_str(), EntryType::Regular, size), &read)?;
            tar.content(&mut file, size, path)
        }
        FileType::Directory => {
            let mut name = path.as_os_str().to_owned();
            name.push(if name.is_empty() { "./" } else { "/" });
            tar.header(&head(&name, EntryType::Directory, 0), &read)
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(node, "", Vec::new()).attempt(attempt)?;
            let head =
                Head { link: text.as_bytes(), ..head(path.as_os_str(), EntryType::Symlink, 0) };
            tar.header(&head, &read)
        }
        FileType::Fifo => tar.header(&head(path.as_os_str(), EntryType::Fifo, 0), &read),
        FileType::CharacterDevice => tar.header(&device(path, EntryType::Char, &stat), &read),
        FileType::BlockDevice => tar.header(&device(path, EntryType::Block, &stat), &read),
        FileType::Socket => Ok(()),
        FileType::Unknown => {
            Err(Error::integrity(format!("{} has an unknown file type", path.display())))
        }
    }
}

fn head(path: &OsStr, kind: EntryType, size: u64) -> Head<'_> {
    Head { path: path.as_bytes(), kind, size, link: b"", device: None }
}

fn device<'a>(path: &'a Path, kind: EntryType, stat: &Stat) -> Head<'a> {
    let numbers = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Head { device: Some(numbers), ..head(path.as_os_str(), kind, 0) }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction; a negative time counts its nanoseconds forward, its text does not.
fn decimal(time: Time) -> String {
    let (sign, seconds, nanoseconds) = match (time.seconds, time.nanoseconds) {
        (seconds, 0) => return seconds.to_string(),
        (seconds, nanoseconds) if seconds >= 0 => ("", seconds, nanoseconds),
        (seconds, nanoseconds) => ("-", -(seconds + 1), 1_000_000_000 - nanoseconds),
    };
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}
