//! Shared pieces of the tests across crates: so far, the fuzz targets.
#![forbid(unsafe_code)]

pub mod fuzz;
