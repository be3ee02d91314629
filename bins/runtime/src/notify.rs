//! Passing on to the service manager that a container's program is ready (sd_notify(3)).

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::Context as _;
use brig_runtime::Container;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The longest message that is read; what is beyond is not a word about being ready.
const MESSAGE_MAX: usize = 4096;
/// How long the manager may take to have read everything.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether this process was given a socket of the service manager.
pub(crate) fn wanted() -> bool {
    manager().is_some()
}

fn manager() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// Listens for the program's word, from before it can say it.
pub(crate) struct Relay {
    program: UnixDatagram,
    manager: UnixDatagram,
}

impl Relay {
    /// Prepares to relay, where the container has a socket and this process was given one.
    pub(crate) fn prepare(container: &Container) -> anyhow::Result<Option<Self>> {
        let Some(address) = manager() else { return Ok(None) };
        let Some(program) = container.notify_socket()? else { return Ok(None) };
        let attempt = || format!("connect to the service manager at {address}");
        let target = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&address),
        };
        let manager = UnixDatagram::unbound().with_context(attempt)?;
        manager.connect_addr(&target.with_context(attempt)?).with_context(attempt)?;
        Ok(Some(Self { program, manager }))
    }

    /// Waits until the program is ready and the manager knows, or the container has ended.
    pub(crate) fn run(&self, pidfd: BorrowedFd<'_>, pid: i32) -> anyhow::Result<()> {
        let mut message = [0; MESSAGE_MAX];
        loop {
            let mut fds =
                [PollFd::new(&self.program, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("wait for the program to be ready"),
            }
            let (spoke, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if spoke {
                let length = self.program.recv(&mut message).context("read from the program")?;
                if let Some(ready) = ready(&message[..length]) {
                    return self.tell(ready, pid);
                }
            } else if ended {
                return Ok(());
            }
        }
    }

    fn tell(&self, ready: &[u8], pid: i32) -> anyhow::Result<()> {
        let attempt = "tell the service manager";
        self.manager.send(&[ready, b"\n"].concat()).context(attempt)?;
        self.manager.send(format!("MAINPID={pid}\n").as_bytes()).context(attempt)?;
        // The manager closes its end once it has read all before; without this it might not find the sender any more.
        let (reader, writer) = std::io::pipe().context(attempt)?;
        let socket = self.manager.as_fd();
        brig_runtime::send_descriptor(socket, b"BARRIER=1", writer.as_fd()).context(attempt)?;
        drop(writer);
        let timeout = Timespec::try_from(BARRIER_TIMEOUT).context(attempt)?;
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout))).context(attempt)?;
        Ok(())
    }
}

/// The line of a message that says that the program is ready.
fn ready(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_found_among_other_words() {
        assert_eq!(ready(b"STATUS=x\nREADY=1\nMAINPID=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready(b"STATUS=READY=1"), None);
    }
}
