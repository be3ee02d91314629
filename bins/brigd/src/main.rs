//! The Brig daemon.

fn main() {}
