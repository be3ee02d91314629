//! Waiting for a container in the foreground: its terminal, its exit, and signals for it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use brig_runtime::pidfd::{send_signal, wait_child};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Signals, held back and read from a descriptor.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: nix::sys::signalfd::SignalFd,
}

impl Foreground {
    /// Holds signals back from here on, so that none is lost between the start and the wait.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        use nix::sys::signal::{SigSet, Signal};
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let mut set = SigSet::all();
        // Faults are this process's own, and SIGCHLD and SIGPIPE are no messages for a container.
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGPIPE,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGTTOU,
            Signal::SIGTTIN,
            Signal::SIGURG,
        ] {
            set.remove(signal);
        }
        set.thread_block().context("hold signals back")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).context("open a signal descriptor")?;
        Ok(Self { signals })
    }

    /// Relays terminal and signals until the process has ended; answers its exit code.
    pub(crate) fn wait(
        &self,
        pidfd: BorrowedFd<'_>,
        master: Option<&OwnedFd>,
    ) -> anyhow::Result<u8> {
        let raw = master.and_then(|_| RawTerminal::enter());
        let relayed = self.relay(pidfd, master);
        drop(raw);
        relayed?;
        let exit = wait_child(pidfd)?;
        Ok(u8::try_from(exit.status() & 0xff).unwrap_or(u8::MAX))
    }

    fn relay(&self, pidfd: BorrowedFd<'_>, master: Option<&OwnedFd>) -> anyhow::Result<()> {
        let stdin = rustix::stdio::stdin();
        let (mut reads_input, mut reads_output) = (master.is_some(), master.is_some());
        if let Some(master) = master {
            resize(master);
        }
        loop {
            let mut fds = vec![
                PollFd::new(&pidfd, PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            let output = fds.len();
            if let Some(master) = master.filter(|_| reads_output) {
                fds.push(PollFd::new(master, PollFlags::IN));
            }
            let input = fds.len();
            if reads_input {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for the container"),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[1] {
                self.forward(pidfd, master);
            }
            if let Some(master) = master {
                if reads_input && ready.get(input) == Some(&true) {
                    reads_input = copy(stdin, master.as_fd());
                }
                if reads_output && ready.get(output) == Some(&true) {
                    reads_output = copy(master.as_fd(), rustix::stdio::stdout());
                }
            }
            if ready[0] {
                if let Some(master) = master.filter(|_| reads_output) {
                    drain(master);
                }
                return Ok(());
            }
        }
    }

    fn forward(&self, pidfd: BorrowedFd<'_>, master: Option<&OwnedFd>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == nix::libc::SIGWINCH {
                if let Some(master) = master {
                    resize(master);
                }
                continue;
            }
            // A container that has just ended needs no signal.
            let _ = send_signal(pidfd, number);
        }
    }
}

/// Copies what is there once; answers whether there may be more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 16384];
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) {
        Ok(0) | Err(_) => return false,
        Ok(length) => length,
    };
    let mut left = &buffer[..length];
    while !left.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, left)) {
            Ok(written) => left = &left[written..],
            Err(_) => return false,
        }
    }
    true
}

/// What the container wrote before it ended: read until the terminal says that nobody has it open, or is empty.
fn drain(master: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
        if !ready || !copy(master.as_fd(), rustix::stdio::stdout()) {
            return;
        }
    }
}

fn resize(master: &OwnedFd) {
    // Without a terminal of its own the size stays what the configuration says.
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// The caller's terminal in raw mode, until dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
