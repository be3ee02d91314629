//! Bytes waiting for a descriptor that did not take them at once.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// A queue of bytes in front of a non-blocking descriptor. It holds memory only while bytes wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

/// Bytes written before more are asked of the kernel in one go are moved to the front once this many are sent.
const COMPACT: usize = 64 << 10;

impl Outbox {
    /// Bytes waiting.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// What waits.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the parts in order, keeping what the descriptor does not take. Parts are kept without an attempt while
    /// older bytes wait.
    pub(crate) fn send(&mut self, fd: impl AsFd, parts: &[&[u8]]) -> rustix::io::Result<()> {
        let mut skip = 0;
        if self.is_empty() {
            let slices: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
            skip = match rustix::io::retry_on_intr(|| rustix::io::writev(&fd, &slices)) {
                Ok(count) => count,
                Err(Errno::AGAIN) => 0,
                Err(errno) => return Err(errno),
            };
        }
        for part in parts {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            self.bytes.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Keeps bytes without an attempt to write them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what waits until the descriptor takes no more; answers whether anything was taken.
    pub(crate) fn flush(&mut self, fd: impl AsFd) -> rustix::io::Result<bool> {
        let before = self.len();
        while !self.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&fd, &self.bytes[self.sent..])) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        let taken = self.len() < before;
        if self.is_empty() {
            *self = Self::default();
        } else if self.sent >= COMPACT {
            self.bytes.drain(..self.sent);
            self.bytes.shrink_to(COMPACT);
            self.sent = 0;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_keep_their_order_when_the_peer_is_slow() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for round in 0..2000_u32 {
            let header = round.to_be_bytes();
            let body = vec![b'x'; usize::try_from(round % 997).unwrap()];
            outbox.send(&ours, &[&header, &body]).unwrap();
            expected.extend(header);
            expected.extend(body);
        }
        assert!(!outbox.is_empty());
        let mut received = vec![0; expected.len()];
        let reader = std::thread::spawn(move || {
            theirs.read_exact(&mut received).unwrap();
            received
        });
        while !outbox.is_empty() {
            outbox.flush(&ours).unwrap();
            std::thread::yield_now();
        }
        assert!(reader.join().unwrap() == expected);
    }
}
