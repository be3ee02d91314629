//! Shared pieces of the tests across crates: an engine to drive, and the fuzz targets.
#![forbid(unsafe_code)]

pub mod api;
pub mod cgroups;
pub mod engine;
pub mod fuzz;
pub mod holder;
pub mod served_registry;
