//! Container images: references, registries, a verified content store, OCI layouts and archives.
#![forbid(unsafe_code)]

pub mod archive;
pub mod content;
pub mod digest;
mod document;
mod error;
mod gc;
pub mod image;
mod layer;
mod lease;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod store;
#[cfg(test)]
mod test_images;

pub use content::Blobs;
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use gc::{Collected, PARTIAL_AGE};
pub use image::Image;
pub use layer::{Compression, LayerReader};
pub use lease::Lease;
pub use manifest::{Descriptor, ImageManifest, Index, Manifest};
pub use platform::{Platform, PlatformChoice};
pub use reference::Reference;
pub use store::{ImageRecord, Resolved, Store};
