//! The Brig shim: keeps one container's stdio, log, terminal and exit status.

fn main() {}
