//! The socket between the caller and a child that is being set up. Message boundaries are kept, and the end of
//! either side is an end of file for the other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::message::{At, Failure, MESSAGE_MAX, Message, Step};
use crate::error::{Error, Result};

/// The caller's side.
#[derive(Debug)]
pub(crate) struct ParentSide(OwnedFd);

/// The child's side: nothing here allocates.
#[derive(Debug)]
pub(crate) struct ChildSide(OwnedFd);

/// Makes both sides, close-on-exec.
pub(crate) fn pair() -> Result<(ParentSide, ChildSide)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map(|(parent, child)| (ParentSide(parent), ChildSide(child)))
        .map_err(|errno| Error::system("make a socket to the new process", errno))
}

impl AsFd for ChildSide {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ParentSide {
    /// Lets the child go on. A child that has ended is not an error here: its last message tells why.
    pub(crate) fn go(&self) -> Result<()> {
        match rustix::net::send(&self.0, b"G", SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::system("release the new process", errno)),
        }
    }

    /// The next message and what came with it; `None` when the child ended without a word.
    pub(crate) fn receive(&self) -> Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            match brig_linux::fd::receive_with_fds(self.0.as_fd(), &mut buffer) {
                Ok((0, _)) => return Ok(None),
                Ok((length, fds)) => {
                    return Ok(Message::decode(&buffer[..length]).map(|message| (message, fds)));
                }
                // The child ended without reading all that it was sent, which is told once, and before what it has said.
                Err(Errno::CONNRESET) => {}
                Err(errno) => return Err(Error::system("hear from the new process", errno)),
            }
        }
    }

    /// The message that was sent already, as [`Self::receive`]; `None` when there is none. Never waits.
    pub(crate) fn receive_sent(&self) -> Result<Option<(Message, Vec<OwnedFd>)>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now))) {
            Ok(0) => Ok(None),
            Ok(_) => self.receive(),
            Err(errno) => Err(Error::system("hear from the new process", errno)),
        }
    }
}

impl ChildSide {
    /// Waits for the caller; an end of file means that it is gone.
    pub(crate) fn wait(&self) -> std::result::Result<(), Failure> {
        let mut byte = [0; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut byte)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Failure::new(Step::Wait, 0, Errno::PIPE)),
            Err(errno) => Err(errno).at(Step::Wait),
        }
    }

    /// Tells the caller. When it cannot be told, it is gone, and the child ends by its next wait.
    pub(crate) fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) {
        send(self.0.as_fd(), message, fds);
    }
}

/// Sends a message over any Unix socket. Child-safe.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &Message, fds: &[BorrowedFd<'_>]) {
    let mut buffer = [0; MESSAGE_MAX];
    let length = message.encode(&mut buffer);
    // A peer that is gone cannot be told that it is.
    let _ = brig_linux::fd::send_with_fds(socket, &buffer[..length], fds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_failed_before_its_release_is_heard() {
        let (parent, child) = pair().unwrap();
        let failure = Failure::new(Step::Mount, 3, Errno::INVAL);
        parent.go().unwrap();
        child.send(&Message::Failed(failure), &[]);
        drop(child);
        let heard = parent.receive().unwrap().map(|(message, _)| message);
        assert_eq!(heard, Some(Message::Failed(failure)));
        assert!(parent.receive().unwrap().is_none());
    }
}
