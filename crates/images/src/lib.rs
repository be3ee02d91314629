//! Container images: references, registries, a verified content store, OCI layouts and archives.
//!
//! # What it does
//! - [`Reference`]: what people type and the full name it stands for, by Docker's rules.
//! - [`Store`]: a standard OCI image layout on disk. Several processes may use it at once; what is acknowledged is durable;
//!   a crash at any instruction leaves it consistent.
//! - [`LayerReader`]: a layer as a tar stream, verified by the blob's digest and the image's diffID.
//! - [`archive`]: `docker save` and `docker load`, and OCI archives.
//! - [`registry`] (feature `registry`, on by default): pull and push over HTTP. This part needs a tokio runtime; the rest
//!   is synchronous.
//!
//! # What it does not do
//! It does not unpack layers or mount anything, does not run containers and does not build images. It neither prints nor
//! reads the environment (the TLS library alone looks for `SSL_CERT_FILE` and `SSL_CERT_DIR`).
//!
//! # Example
//! ```
//! use brig_images::{archive, Platform, Reference, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let root = directory.path();
//! let store = Store::open(root)?;
//! # let mut file = Vec::new();
//! # let lease = store.lease()?;
//! # let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
//! # let config = lease.put("application/vnd.oci.image.config.v1+json", config)?;
//! # let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
//! # let target = lease.put("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())?;
//! # let image = archive::SavedImage { target, references: vec![Reference::parse("app:1")?] };
//! # archive::save(&store, &[image], &brig_images::PlatformChoice::All, &mut file)?;
//! # let file = &file[..];
//! for loaded in archive::load(&store, file)? {
//!     println!("loaded {:?}", loaded.references);
//! }
//! let found = store.resolve("app:1")?;
//! let image = store.image(found.selected(), &Platform::parse("linux/amd64")?)?;
//! println!("image {}", image.id.short());
//! for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
//!     let tar = store.layer(layer, diff_id)?;
//!     // … hand `tar` to something that applies it, then:
//!     tar.finish()?;
//! }
//! # Ok(())
//! # }
//! ```
//! `examples/pull-image` is a program that pulls.
#![forbid(unsafe_code)]

pub mod archive;
mod check;
mod compose;
pub mod content;
pub mod digest;
mod document;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
pub mod image;
mod layer;
mod lease;
pub mod manifest;
pub mod platform;
pub mod reference;
#[cfg(feature = "registry")]
pub mod registry;
pub mod store;
#[cfg(test)]
mod test_images;

pub use check::{Compared, Fault, Hashed, Root, TRANSFER};
pub use compose::{NewImage, NewLayer};
pub use content::{Blobs, Upload};
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use gc::{Collected, PARTIAL_AGE};
pub use image::Image;
pub use layer::{Compression, LayerReader};
pub use lease::Lease;
pub use manifest::{Descriptor, ImageManifest, Index, Manifest};
pub use platform::{Platform, PlatformChoice};
pub use reference::Reference;
pub use store::{ImageRecord, Resolved, Store, StoreLock};
