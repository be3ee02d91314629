//! Telling whoever started brigd that it serves.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;

/// Tells systemd, and writes a byte to the descriptor `ready_fd`.
pub(crate) fn announce(ready_fd: Option<u32>) -> Result<()> {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let Some(descriptor) = ready_fd else { return Ok(()) };
    // Opening it anew needs no trust in the number, and the copy is closed on exec.
    let path = format!("/proc/self/fd/{descriptor}");
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| format!("open the readiness descriptor {descriptor}"))?;
    // Who asked may have given up waiting; we serve all the same.
    let _ = file.write_all(b"\n");
    Ok(())
}

/// Tells systemd that the end is meant.
pub(crate) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
