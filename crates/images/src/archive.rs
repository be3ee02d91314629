//! Image archives: what `docker save` and `docker load` exchange, and OCI archives.
//!
//! [`load`] reads either form in one pass, from any stream, gzip or Zstandard or plain. Nothing is unpacked to disk:
//! every file of the archive becomes a blob, and its path is only a word to find that blob by. Paths that climb, links
//! that lead nowhere, devices and oversized headers are refused.
//!
//! [`save`] writes an archive that is both: an OCI layout (`oci-layout`, `index.json`, `blobs/`) with Docker's
//! `manifest.json`, as Docker 25 and later do.

mod load;
mod save;
mod tar_reader;

pub use load::{Loaded, load, load_under};
pub use save::{SavedImage, save};

use std::io::{self, Read, Write};

use crate::layer::Bounded;

/// Reads an archive of any kind that may be compressed by gzip or Zstandard, within the limit on expansion.
///
/// # Errors
/// The reader's own.
pub fn decompress(archive: impl Read) -> io::Result<impl Read> {
    Bounded::new(archive)
}

/// Compresses with Zstandard what `write` writes.
///
/// # Errors
/// What `write` reports, and the output's own.
pub fn compress<E: From<io::Error>>(
    output: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut encoder = zstd::stream::write::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    write(&mut encoder)?;
    encoder.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests;
