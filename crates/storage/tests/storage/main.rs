//! The storage on real overlayfs. Needs root.

mod layers;
mod snapshots;
mod support;
mod trees;
mod volumes;
