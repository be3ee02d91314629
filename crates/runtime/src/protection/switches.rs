//! The switches themselves; only tests are built with them.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Protection;

static OFF: AtomicU32 = AtomicU32::new(0);

/// Whether a protection stands. Child-safe.
pub(crate) fn on(protection: Protection) -> bool {
    OFF.load(Ordering::Relaxed) & protection.bit() == 0
}

/// Without [`Protection::Descriptors`], what an exec would not close: what a careless caller leaks.
pub(crate) fn leaked_descriptors() -> Vec<RawFd> {
    if on(Protection::Descriptors) {
        return Vec::new();
    }
    let names = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| !closes_on_exec(*number)).collect()
}

fn closes_on_exec(number: RawFd) -> bool {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|text| i32::from_str_radix(text.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_CLOEXEC != 0)
}

impl Protection {
    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Runs `attack` with some protections switched off, in the whole process.
pub fn without<T>(protections: &[Protection], attack: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            OFF.store(0, Ordering::Relaxed);
        }
    }
    let _restore = Restore;
    let bits = protections.iter().fold(0, |bits, protection| bits | protection.bit());
    OFF.store(bits, Ordering::Relaxed);
    attack()
}
