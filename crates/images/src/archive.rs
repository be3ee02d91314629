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

pub use load::{Loaded, load};
pub use save::{SavedImage, save};

#[cfg(test)]
mod tests;
