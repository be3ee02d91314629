//! A strict tar reader for archives of images: regular files, links and directories, streamed, with limits.
//!
//! It is stricter than a general one on purpose. Where readers differ in what they make of an odd header, an attacker
//! hides content from one of them; here such archives are refused.
//!
//! Limits: 65,536 entries, names of 4,096 bytes and 16 MiB in all, 1 MiB of extended header an entry.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

use crate::{Error, ErrorKind, Result};

const BLOCK: usize = 512;
const ENTRY_LIMIT: usize = 65_536;
const NAME_LIMIT: usize = 4096;
/// Bytes of all names together, which a reader of archives keeps in memory.
const NAMES_LIMIT: usize = 16 << 20;
const EXTENSION_LIMIT: u64 = 1 << 20;

/// One entry's header. Its content is read from the [`TarReader`].
#[derive(Debug)]
pub(super) struct Entry {
    /// Normalised: relative, without `.` and `..`.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Bytes of content.
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    File,
    Directory,
    /// Target, relative to the archive's root.
    Link(String),
}

/// Reads entries one after another.
pub(super) struct TarReader<R> {
    inner: R,
    /// Content of the present entry not read yet, and its padding.
    rest: u64,
    padding: u64,
    entries: usize,
    names: usize,
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, rest: 0, padding: 0, entries: 0, names: 0 }
    }

    /// The next entry, or `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > ENTRY_LIMIT {
                return Err(refuse(format!("it has more than {ENTRY_LIMIT} entries")));
            }
            let size = header.entry_size().map_err(damaged)?;
            self.begin(extended.size.unwrap_or(size));
            match header.entry_type() {
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                }
                EntryType::XHeader => extended.read_pax(&self.extension(size)?)?,
                EntryType::GNULongName => extended.path = Some(trim(self.extension(size)?)),
                EntryType::GNULongLink => extended.link = Some(trim(self.extension(size)?)),
                _ => {
                    let entry = entry(&header, &extended, self.rest)?;
                    self.count_names(&entry)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn count_names(&mut self, entry: &Entry) -> Result<()> {
        let link = match &entry.kind {
            Kind::Link(target) => target.len(),
            Kind::File | Kind::Directory => 0,
        };
        self.names += entry.path.len() + link;
        match self.names <= NAMES_LIMIT {
            true => Ok(()),
            false => Err(refuse(format!("its names are longer than {NAMES_LIMIT} bytes together"))),
        }
    }

    fn begin(&mut self, size: u64) {
        self.rest = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The content of the present entry, at most `limit` bytes.
    pub(super) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.rest > limit {
            return Err(refuse(format!("a document in it is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(damaged)?;
        Ok(bytes)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_LIMIT {
            return Err(refuse(format!("it has an extended header of {size} bytes")));
        }
        self.begin(size);
        self.read_all(EXTENSION_LIMIT)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.rest.saturating_add(self.padding);
        let skipped = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink());
        if skipped.map_err(damaged)? != rest {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        (self.rest, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header block; `None` at the end marker (a block of zeros) or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = Vec::with_capacity(BLOCK);
        self.inner.by_ref().take(BLOCK as u64).read_to_end(&mut block).map_err(damaged)?;
        if block.is_empty() || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if block.len() < BLOCK {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let header = Header::from_byte_slice(&block).clone();
        // The checksum counts its own field as spaces.
        let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let actual = sum(&block[..148]) + sum(&block[156..]) + 8 * u32::from(b' ');
        match header.cksum() {
            Ok(stated) if stated == actual => Ok(Some(header)),
            _ => Err(refuse("it is not a tar archive or is damaged (header checksum)")),
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.by_ref().take(self.rest).read(buffer)?;
        if count == 0 && self.rest > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest -= count as u64;
        Ok(count)
    }
}

impl Extended {
    fn read_pax(&mut self, bytes: &[u8]) -> Result<()> {
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(damaged)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).ok();
                    let size = text.and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| refuse("a PAX size is malformed"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refuse("it has sparse files, which no image archive needs"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn entry(header: &Header, extended: &Extended, size: u64) -> Result<Entry> {
    let stated = header.entry_size().map_err(damaged)?;
    // A PAX size is for what the header's field cannot hold (8 GiB and more), where writers put zero. Anything else is
    // read differently by different tools.
    if extended.size.is_some_and(|size| size != stated && stated != 0) {
        return Err(refuse("an entry states two different sizes, which is a known attack"));
    }
    let path = extended.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
    let path = normalize("", &path)?;
    let link = || match (&extended.link, header.link_name_bytes()) {
        (Some(link), _) => link.clone(),
        (None, Some(link)) => link.into_owned(),
        (None, None) => Vec::new(),
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Link => Kind::Link(normalize("", &link())?),
        EntryType::Symlink => {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            Kind::Link(normalize(directory, &link())?)
        }
        other => {
            return Err(refuse(format!(
                "{path:?} is neither file, directory nor link ({other:?})"
            )));
        }
    };
    match kind {
        Kind::File => {}
        _ if size == 0 => {}
        _ => return Err(refuse(format!("{path:?} has content but is no file"))),
    }
    Ok(Entry { path, kind, size })
}

/// Resolves `path` against `directory` as words. Leaving the archive is an error.
fn normalize(directory: &str, path: &[u8]) -> Result<String> {
    if path.len() > NAME_LIMIT {
        return Err(refuse(format!("a name is longer than {NAME_LIMIT} bytes")));
    }
    let Ok(path) = std::str::from_utf8(path) else {
        return Err(refuse("a name is not UTF-8"));
    };
    if path.starts_with('/') || path.contains('\0') {
        return Err(refuse(format!("the path {path:?} leads out of it")));
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_some() => {}
            ".." => return Err(refuse(format!("the path {path:?} leads out of it"))),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn trim(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn refuse(why: impl AsRef<str>) -> Error {
    Error::invalid(format!("read image archive: {}", why.as_ref()))
}

fn damaged(source: io::Error) -> Error {
    let attempt = "read image archive: it is damaged or cut short";
    let caused = |source| Error::caused(ErrorKind::InvalidInput, attempt, source);
    Error::recover(source).unwrap_or_else(caused)
}
