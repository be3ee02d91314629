//! The storage on real overlayfs. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![expect(clippy::print_stderr, reason = "what cannot run here is said to be skipped")]

mod images;
mod layers;
mod snapshots;
mod support;
mod trees;
mod volumes;
