//! The Brig command line.

fn main() {}
