//! A streaming tar reader that decodes entries into checked values.
//!
//! Refused because parsers disagree about them: content after a symbolic link, device, FIFO or directory header (GNU tar
//! skips it, Go reads it as the next header), and global headers that change paths or sizes (GNU tar applies them, Go
//! does not).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::pax::Records;
use super::{Attributes, Entry, EntryKind, Limits, Time, clean_path, over_limit, sparse};
use crate::error::{Attempt, Error, Result};

const BLOCK: u64 = 512;

/// Reads entries one after another; the content of the current one is read through [`TarReader::content`].
pub(crate) struct TarReader<R> {
    stream: Metered<R>,
    limits: Limits,
    content_left: u64,
    padding: u64,
    entries: u64,
}

struct Metered<R> {
    inner: R,
    left: u64,
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extended {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // Only an error if there really is more.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    "the archive expands beyond its limit",
                )),
            };
        }
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..allowed])?;
        self.left -= u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R, limits: &Limits) -> Self {
        let stream = Metered { inner, left: limits.stream_bytes_max };
        Self { stream, limits: limits.clone(), content_left: 0, padding: 0, entries: 0 }
    }

    /// The next entry; what was not read of the current one is skipped. `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut extended = Extended::default();
        let mut described = false;
        loop {
            let Some(header) = self.header()? else {
                if described {
                    return Err(Error::integrity("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            match header.entry_type() {
                EntryType::XHeader => extended.records = Records::parse(&self.payload(&header)?)?,
                EntryType::GNULongName => extended.long_name = Some(self.long_text(&header)?),
                EntryType::GNULongLink => extended.long_link = Some(self.long_text(&header)?),
                EntryType::XGlobalHeader => {
                    self.global(&header)?;
                    continue;
                }
                _ => {
                    self.entries += 1;
                    if self.entries > self.limits.entries_max {
                        return Err(over_limit(format_args!(
                            "{} entries",
                            self.limits.entries_max
                        )));
                    }
                    if let Some(entry) = self.entry(&header, &extended)? {
                        return Ok(Some(entry));
                    }
                    self.skip_rest()?;
                    extended = Extended::default();
                    described = false;
                    continue;
                }
            }
            described = true;
        }
    }

    /// The stored bytes of the current entry.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Reads what follows the archive's end, so that a reader that verifies a digest at its end gets there.
    pub(crate) fn drain(&mut self) -> Result<()> {
        io::copy(&mut self.stream, &mut io::sink())
            .attempt(|| "read the rest of the archive".into())
            .map(drop)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let skip = self.content_left + self.padding;
        (self.content_left, self.padding) = (0, 0);
        if skip < BLOCK {
            // Nearly always only padding.
            let mut padding = [0; 512];
            let length = usize::try_from(skip).unwrap_or(0);
            return match self.stream.read_exact(&mut padding[..length]) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(Error::integrity("the archive is cut short"))
                }
                other => other.attempt(|| "read the archive".into()),
            };
        }
        let skipped = io::copy(&mut (&mut self.stream).take(skip), &mut io::sink())
            .attempt(|| "read the archive".into())?;
        if skipped == skip { Ok(()) } else { Err(Error::integrity("the archive is cut short")) }
    }

    /// One header block; `None` at the end: a block of zeros, or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut filled = 0;
        let block = header.as_mut_bytes();
        while filled < block.len() {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::integrity("the archive is cut short in a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).attempt(|| "read the archive".into()),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum = header.as_bytes().iter().enumerate().fold(0_u32, |sum, (at, &byte)| {
            // The checksum's own field counts as spaces.
            sum + if (148..156).contains(&at) { 32 } else { u32::from(byte) }
        });
        let stated = unsigned(&header, Field::Checksum)?;
        if u64::from(sum) != stated {
            return Err(Error::integrity("an archive header has a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn payload(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = unsigned(header, Field::Size)?;
        if size > self.limits.header_bytes_max {
            return Err(over_limit(format_args!(
                "an extended header of {size} bytes, {} are allowed",
                self.limits.header_bytes_max
            )));
        }
        self.expect_content(size)?;
        let mut payload = Vec::new();
        self.content()
            .read_to_end(&mut payload)
            .attempt(|| "read an extended header of the archive".into())?;
        self.skip_rest()?;
        Ok(payload)
    }

    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut text = self.payload(header)?;
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        text.truncate(end);
        Ok(text)
    }

    fn global(&mut self, header: &Header) -> Result<()> {
        let records = Records::parse(&self.payload(header)?)?;
        let changes_meaning =
            ["path", "linkpath", "size"].iter().any(|key| records.value(key).is_some());
        if changes_meaning {
            return Err(Error::integrity("a global header of the archive sets paths or sizes"));
        }
        Ok(())
    }

    fn expect_content(&mut self, size: u64) -> Result<()> {
        if size > self.stream.left {
            return Err(over_limit(format_args!("an entry of {size} bytes")));
        }
        self.content_left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(())
    }

    /// Decodes an ordinary entry; `None` for kinds that put nothing on disk (volume labels).
    fn entry(&mut self, header: &Header, extended: &Extended) -> Result<Option<Entry>> {
        let records = &extended.records;
        let raw_path = self.raw_path(header, extended)?;
        let path = clean_path(&raw_path)
            .attempt(|| format!("decode archive entry {}", raw_path.display()))?;
        let within = || format!("decode archive entry {}", raw_path.display());
        let size = match records.number("size")? {
            Some(size) => size,
            None => unsigned(header, Field::Size).attempt(within)?,
        };
        let directory_name = raw_path.as_os_str().as_bytes().ends_with(b"/");
        let kind = match header.entry_type() {
            // Before POSIX, a directory was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if directory_name => {
                self.no_content(size).attempt(within)?;
                EntryKind::Directory
            }
            EntryType::Regular | EntryType::Continuous => {
                self.expect_content(size)?;
                self.file(size, records).attempt(within)?
            }
            EntryType::GNUSparse => self.gnu_sparse(header, size).attempt(within)?,
            // POSIX lets a hard link state the size of its target; nothing is stored.
            EntryType::Link => {
                EntryKind::HardLink(clean_path(&self.link(header, extended)?).attempt(within)?)
            }
            kind => {
                self.no_content(size).attempt(within)?;
                match kind {
                    EntryType::Directory => EntryKind::Directory,
                    EntryType::Symlink => {
                        EntryKind::Symlink(self.link(header, extended)?.into_os_string())
                    }
                    EntryType::Char | EntryType::Block => device(header).attempt(within)?,
                    EntryType::Fifo => EntryKind::Fifo,
                    other if other.as_byte() == b'V' => return Ok(None),
                    other => {
                        return Err(Error::integrity(format!(
                            "archive entry {} has the unknown type {:?}",
                            raw_path.display(),
                            char::from(other.as_byte())
                        )));
                    }
                }
            }
        };
        let attributes = self.attributes(header, records).attempt(within)?;
        Ok(Some(Entry { path, kind, attributes }))
    }

    fn no_content(&self, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        Err(Error::integrity("an entry that is not a file states a size; parsers disagree on it"))
    }

    fn file(&mut self, stored: u64, records: &Records) -> Result<EntryKind> {
        let real_size = match records.number("GNU.sparse.realsize")? {
            None => records.number("GNU.sparse.size")?,
            size => size,
        };
        let Some(size) = real_size else {
            return Ok(EntryKind::File { size: stored, sparse: None });
        };
        let (pieces, used) = if sparse::map_is_in_content(records)? {
            let limits = self.limits.clone();
            sparse::from_content(&mut self.content(), &limits)?
        } else {
            let pieces = sparse::from_records(records, &self.limits)?;
            (pieces.ok_or_else(|| Error::integrity("a sparse file has no map"))?, 0)
        };
        sparse::check(&pieces, size, stored - used)?;
        Ok(EntryKind::File { size, sparse: Some(pieces) })
    }

    fn gnu_sparse(&mut self, header: &Header, stored: u64) -> Result<EntryKind> {
        let gnu =
            header.as_gnu().ok_or_else(|| Error::integrity("a sparse file has no GNU header"))?;
        let pieces = sparse::from_gnu_header(gnu, &mut self.stream, &self.limits)?;
        let size = gnu
            .real_size()
            .map_err(|_| Error::integrity("the size of a sparse file is malformed"))?;
        sparse::check(&pieces, size, stored)?;
        self.expect_content(stored)?;
        Ok(EntryKind::File { size, sparse: Some(pieces) })
    }

    fn raw_path(&self, header: &Header, extended: &Extended) -> Result<PathBuf> {
        let records = &extended.records;
        let bytes = match (
            &extended.long_name,
            records.value("GNU.sparse.name").or_else(|| records.value("path")),
        ) {
            (Some(long), _) => long.clone(),
            (None, Some(path)) => path.to_vec(),
            (None, None) => header.path_bytes().into_owned(),
        };
        self.path_text(bytes)
    }

    fn link(&self, header: &Header, extended: &Extended) -> Result<PathBuf> {
        let bytes = match (&extended.long_link, extended.records.value("linkpath")) {
            (Some(long), _) => long.clone(),
            (None, Some(path)) => path.to_vec(),
            (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        if bytes.is_empty() {
            return Err(Error::integrity("a link in the archive has no target"));
        }
        self.path_text(bytes)
    }

    fn path_text(&self, bytes: Vec<u8>) -> Result<PathBuf> {
        if bytes.len() > self.limits.path_bytes_max {
            return Err(over_limit(format_args!("a path of {} bytes", bytes.len())));
        }
        if bytes.contains(&0) {
            return Err(Error::integrity("a path in the archive holds a NUL byte"));
        }
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }

    fn attributes(&self, header: &Header, records: &Records) -> Result<Attributes> {
        let uid = match records.number("uid")? {
            Some(uid) => uid,
            None => unsigned(header, Field::Uid)?,
        };
        let gid = match records.number("gid")? {
            Some(gid) => gid,
            None => unsigned(header, Field::Gid)?,
        };
        let modified = match records.time("mtime")? {
            Some(time) => time,
            None => Time { seconds: signed(header, Field::Modified)?, nanoseconds: 0 },
        };
        Ok(Attributes {
            mode: u32::try_from(unsigned(header, Field::Mode)? & 0o7777).unwrap_or(0),
            uid: owner(uid)?,
            gid: owner(gid)?,
            modified,
            accessed: records.time("atime")?,
            xattrs: self.xattrs(records)?,
        })
    }

    fn xattrs(&self, records: &Records) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut total = 0;
        let mut xattrs = Vec::new();
        for (name, value) in records.xattrs() {
            total += name.len() + value.len();
            if total > self.limits.xattr_bytes_max {
                return Err(over_limit("extended attributes of one entry"));
            }
            if name.is_empty() || name.contains(&0) {
                return Err(Error::integrity("an extended attribute has a bad name"));
            }
            xattrs.push((OsStr::from_bytes(name).to_owned(), value.to_vec()));
        }
        Ok(xattrs)
    }
}

/// `u32::MAX` is "no change" to chown(2), so it cannot own anything.
fn owner(id: u64) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or_else(|| Error::integrity(format!("owner id {id} does not exist on Linux")))
}

/// The numeric fields of a header block, by their places in it (POSIX pax(1), ustar).
#[derive(Clone, Copy)]
enum Field {
    Mode,
    Uid,
    Gid,
    Size,
    Modified,
    Checksum,
}

fn unsigned(header: &Header, field: Field) -> Result<u64> {
    let number = signed(header, field)?;
    u64::try_from(number).map_err(|_| Error::integrity("a number in an archive header is negative"))
}

/// Octal text between blanks and NULs, where nothing at all is zero; or GNU's base-256: two's complement in the bits
/// after the first.
fn signed(header: &Header, field: Field) -> Result<i64> {
    let old = header.as_old();
    let bytes: &[u8] = match field {
        Field::Mode => &old.mode,
        Field::Uid => &old.uid,
        Field::Gid => &old.gid,
        Field::Size => &old.size,
        Field::Modified => &old.mtime,
        Field::Checksum => &old.cksum,
    };
    let malformed = || Error::integrity("a number in an archive header is malformed");
    let (first, rest) = bytes.split_first().ok_or_else(malformed)?;
    if first & 0x80 != 0 {
        // Sign-extended from the second bit.
        let start = i64::from(first & 0x3f) - i64::from(first & 0x40);
        return rest.iter().try_fold(start, |number, &byte| {
            number
                .checked_mul(256)
                .and_then(|number| number.checked_add(byte.into()))
                .ok_or_else(malformed)
        });
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes[start..].iter().position(blank).map_or(bytes.len(), |at| start + at);
    bytes[start..end].iter().try_fold(0_i64, |number, &byte| match byte {
        b'0'..=b'7' => number
            .checked_mul(8)
            .and_then(|number| number.checked_add(i64::from(byte - b'0')))
            .ok_or_else(malformed),
        _ => Err(malformed()),
    })
}

fn device(header: &Header) -> Result<EntryKind> {
    let malformed = |_| Error::integrity("a device number is malformed");
    let major = header.device_major().map_err(malformed)?.unwrap_or(0);
    let minor = header.device_minor().map_err(malformed)?.unwrap_or(0);
    Ok(match header.entry_type() {
        EntryType::Char => EntryKind::CharacterDevice(major, minor),
        _ => EntryKind::BlockDevice(major, minor),
    })
}

/// The stored bytes of an entry; see [`TarReader::content`].
pub(crate) struct Content<'a, R> {
    reader: &'a mut TarReader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.reader.content_left).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        self.reader.content_left -= u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

impl<R> std::fmt::Debug for Content<'_, R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"00000000017\0", Some(15)),
            (b"      17 \0  ", Some(15)),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"00000000018\0", None),
            (b"-0000000001\0", None),
        ];
        for (bytes, expected) in cases {
            let mut header = Header::new_old();
            header.as_old_mut().mtime.copy_from_slice(bytes);
            let found = signed(&header, Field::Modified).ok();
            assert_eq!(found, expected, "{}", bytes.escape_ascii());
        }
    }
}
