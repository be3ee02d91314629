//! A layer as the tar stream it is, verified twice: the stored bytes by the blob's digest, the tar by the diffID.
//!
//! Both are known to be right only at the end of the stream. A consumer that acts on the bytes before must be able to
//! undo what it did (a snapshot that is not committed) and must read to the end: a tar's own end marker is not it, so
//! finish with [`LayerReader::finish`].

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::content::Stored;
use crate::digest::{Digest, Hasher};
use crate::{Error, ErrorKind, Result};

/// Expansion is not looked at below this many bytes of output.
const EXPANSION_FREE: u64 = 1 << 30;
/// Output bytes for an input byte beyond which a layer is taken for a bomb.
const EXPANSION_LIMIT: u64 = 1000;
const BUFFER: usize = 64 << 10;
/// Largest window a Zstandard layer may ask for: 2^27 bytes, the format's recommended maximum for decoders.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How content is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one or more members.
    Gzip,
    /// Zstandard, one or more frames.
    Zstd,
}

impl Compression {
    /// Recognises the compression by the first bytes. Media types lie often enough that nobody trusts them for this.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A Zstandard skippable frame, with which zstd:chunked and seekable files may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Reads a layer decompressed and verified. See the module's documentation.
pub struct LayerReader {
    decoder: Option<Decoder<Source<Stored>>>,
    digest: Digest,
    diff_id: Option<Digest>,
    hasher: Option<Hasher>,
    produced: u64,
    /// Output that is free of the expansion limit, in bytes.
    expansion_free: u64,
}

impl LayerReader {
    pub(crate) fn new(file: Stored, digest: Digest, diff_id: Option<Digest>) -> Result<Self> {
        let hasher = Hasher::new(digest.algorithm());
        let source = Source { inner: file, hasher, consumed: 0 };
        let decoder = Decoder::new(source).map_err(|source| {
            Error::caused(ErrorKind::Integrity, format!("open layer {digest}"), source)
        })?;
        let hasher = diff_id.as_ref().map(|diff_id| Hasher::new(diff_id.algorithm()));
        Ok(Self {
            decoder: Some(decoder),
            digest,
            diff_id,
            hasher,
            produced: 0,
            expansion_free: EXPANSION_FREE,
        })
    }

    /// Reads what is left and verifies both digests.
    ///
    /// # Errors
    /// [`Integrity`](ErrorKind::Integrity) or [`Exhausted`](ErrorKind::Exhausted); the bytes read must not be used.
    pub fn finish(mut self) -> Result<()> {
        let drained = io::copy(&mut self, &mut io::sink());
        drained.map(drop).map_err(|source| self.classify(source))
    }

    /// The uncompressed bytes read so far.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced
    }

    fn classify(&self, source: io::Error) -> Error {
        match Error::recover(source) {
            Ok(error) => error,
            Err(source) => Error::caused(
                ErrorKind::Integrity,
                format!("decompress layer {}: it is damaged", self.digest),
                source,
            ),
        }
    }

    fn check_expansion(&self) -> Result<()> {
        let consumed = self.decoder.as_ref().map_or(0, |decoder| decoder.source().consumed);
        if is_bomb(self.produced, consumed, self.expansion_free) {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "decompress layer {}: it expands more than {EXPANSION_LIMIT} times, as only an attack does",
                    self.digest
                ),
            ));
        }
        Ok(())
    }

    /// At the end of the tar stream: read the blob to its end, then compare.
    fn verify(&mut self) -> Result<()> {
        let Some(decoder) = self.decoder.take() else { return Ok(()) };
        let mut source = decoder.into_source();
        io::copy(&mut source, &mut io::sink()).map_err(|source| self.classify(source))?;
        let found = source.hasher.finish();
        if found != self.digest {
            return Err(Error::integrity(format!(
                "verify layer {}: the stored bytes hash to {found}; remove the image and pull it again",
                self.digest
            )));
        }
        let (Some(hasher), Some(diff_id)) = (self.hasher.take(), &self.diff_id) else {
            return Ok(());
        };
        let found = hasher.finish();
        if found != *diff_id {
            return Err(Error::integrity(format!(
                "verify layer {}: its content hashes to {found}, but the image's configuration says {diff_id}",
                self.digest
            )));
        }
        Ok(())
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = decoder.read(buffer).map_err(|source| self.classify(source))?;
        if count == 0 {
            self.verify()?;
            return Ok(0);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.produced += count as u64;
        self.check_expansion()?;
        Ok(count)
    }
}

impl std::fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerReader")
            .field("digest", &self.digest)
            .field("diff_id", &self.diff_id)
            .field("produced", &self.produced)
            .finish_non_exhaustive()
    }
}

/// Decompresses a stream of unknown digest, such as an archive, within the limit on expansion.
pub(crate) struct Bounded<R: Read> {
    decoder: Decoder<Counted<R>>,
    produced: u64,
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R) -> io::Result<Self> {
        Ok(Self { decoder: Decoder::new(Counted { inner, consumed: 0 })?, produced: 0 })
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.produced += count as u64;
        if is_bomb(self.produced, self.decoder.source().consumed, EXPANSION_FREE) {
            let attempt = format!(
                "decompress archive: it expands more than {EXPANSION_LIMIT} times, as only an attack does"
            );
            return Err(Error::new(ErrorKind::Exhausted, attempt).into());
        }
        Ok(count)
    }
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    consumed: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.consumed += count as u64;
        Ok(count)
    }
}

fn is_bomb(produced: u64, consumed: u64, free: u64) -> bool {
    produced > free && produced / EXPANSION_LIMIT > consumed
}

/// Counts and hashes what passes.
pub(crate) struct Source<R> {
    inner: R,
    hasher: Hasher,
    consumed: u64,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.consumed += count as u64;
        Ok(count)
    }
}

/// Decompresses a stream after looking at its first bytes.
pub(crate) enum Decoder<R: Read> {
    Plain(BufReader<Peeked<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Peeked<R>>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Peeked<R>>>>),
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(mut inner: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(4);
        inner.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        let peeked = BufReader::with_capacity(BUFFER, Peeked { start, position: 0, inner });
        Ok(match compression {
            Compression::None => Self::Plain(peeked),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(peeked))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(peeked)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn source(&self) -> &R {
        let peeked = match self {
            Self::Plain(reader) => reader.get_ref(),
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        };
        &peeked.inner
    }

    fn into_source(self) -> R {
        let peeked = match self {
            Self::Plain(reader) => reader.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        };
        peeked.inner
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A reader whose first bytes were looked at already.
pub(crate) struct Peeked<R> {
    start: Vec<u8>,
    position: usize,
    inner: R,
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &self.start[self.position..];
        if rest.is_empty() {
            return self.inner.read(buffer);
        }
        let count = rest.read(buffer)?;
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
