//! The Brig OCI runtime command line (brig-runtime).

fn main() {}
