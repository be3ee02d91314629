//! The shim's own log: lines for whoever has to find out why something failed.
//!
//! Under containerd it is the FIFO `log` in the bundle, under brigd the file `shim.log`, which stops growing at
//! [`LENGTH_MAX`]. Losing these lines is never an error.

use std::fmt;
use std::os::fd::OwnedFd;

use brig_shim_protocol::Timestamp;
use rustix::fs::{CWD, FileType, Mode, OFlags};

/// Most bytes that one shim writes about itself.
const LENGTH_MAX: usize = 256 << 10;

/// The shim's own log.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    target: Option<OwnedFd>,
    length: usize,
    debug: bool,
    is_fifo: bool,
}

impl Diagnostics {
    /// Opens the log in the working directory, which is the bundle.
    pub(crate) fn open(debug: bool) -> Self {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::APPEND | OFlags::CLOEXEC;
        let is_fifo = rustix::fs::stat("log")
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        let opened = if is_fifo {
            rustix::fs::openat(CWD, "log", flags, Mode::empty())
        } else {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::openat(CWD, "shim.log", flags | OFlags::CREATE, mode)
        };
        Self { target: opened.ok(), length: 0, debug, is_fifo }
    }

    /// Says what went wrong.
    pub(crate) fn warn(&mut self, message: fmt::Arguments<'_>) {
        self.line("warning", message);
    }

    /// Says what happens, when asked to.
    pub(crate) fn debug(&mut self, message: fmt::Arguments<'_>) {
        if self.debug {
            self.line("debug", message);
        }
    }

    fn line(&mut self, level: &str, message: fmt::Arguments<'_>) {
        let Some(target) = &self.target else { return };
        let line =
            format!("time=\"{}\" level={level} msg={:?}\n", Timestamp::now(), message.to_string());
        if self.length + line.len() > LENGTH_MAX && !self.is_fifo {
            return;
        }
        if let Ok(count) = rustix::io::write(target, line.as_bytes()) {
            self.length += count;
        }
    }
}
