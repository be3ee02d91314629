//! What a waiting shim costs.

use std::fs;

use crate::support::{Setup, Shim, skip};

/// Threads and private memory that a shim with a sleeping container may have. The program's own pages are shared by
/// all shims, and differ between builds; what one more shim costs are the pages that it wrote to.
/// (A static release build has 110 KiB; a debug build relocates and keeps more.)
const PRIVATE_MAX_KIB: u64 = if cfg!(debug_assertions) { 1024 } else { 256 };

#[test]
fn a_waiting_shim_is_one_small_thread() {
    if skip("a_waiting_shim_is_one_small_thread") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000").log(0, 1, false));
    shim.start();
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid)).unwrap();
    assert!(status.contains("\nThreads:\t1\n"), "{status}");
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.pid)).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Not "Private_Dirty": it counts a program that was just linked and is not on the disk yet.
    let private = field("Anonymous:");
    assert!(private <= PRIVATE_MAX_KIB, "{rollup}");
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}
