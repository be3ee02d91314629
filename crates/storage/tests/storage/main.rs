//! The storage on real overlayfs. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod images;
mod layers;
mod snapshots;
mod support;
mod trees;
mod volumes;
