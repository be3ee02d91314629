//! Reading on a thread of its own, some buffers ahead of the consumer.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const BUFFER_BYTES: usize = 256 << 10;
/// Buffers that are filled or on their way back.
const BUFFERS: usize = 6;

/// Runs `consume` with a reader that yields what `source` does, while a second thread reads `source`. When `consume`
/// stops early, so does the thread.
pub(super) fn read_ahead<T>(
    source: &mut (dyn Read + Send),
    consume: impl FnOnce(&mut dyn Read) -> T,
) -> T {
    let (filled, ready) = sync_channel(BUFFERS);
    let (used, empty) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        // The channel has room for all of them.
        drop(used.send(vec![0; BUFFER_BYTES]));
    }
    std::thread::scope(|scope| {
        scope.spawn(move || fill(source, &filled, &empty));
        let mut ahead = Ahead { ready, used, current: Vec::new(), position: 0, length: 0 };
        let consumed = consume(&mut ahead);
        // Wakes the thread where it waits for a buffer.
        drop(ahead);
        consumed
    })
}

type Filled = io::Result<(Vec<u8>, usize)>;

fn fill(source: &mut dyn Read, filled: &SyncSender<Filled>, empty: &Receiver<Vec<u8>>) {
    while let Ok(mut buffer) = empty.recv() {
        let mut length = 0;
        let failure = loop {
            if length == buffer.len() {
                break None;
            }
            match source.read(&mut buffer[length..]) {
                Ok(0) => break Some(None),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Some(error)),
            }
        };
        if length > 0 && filled.send(Ok((buffer, length))).is_err() {
            return;
        }
        match failure {
            None => {}
            Some(None) => return,
            Some(Some(error)) => {
                // Nobody listens any more: then nobody needs it.
                drop(filled.send(Err(error)));
                return;
            }
        }
    }
}

struct Ahead {
    ready: Receiver<Filled>,
    used: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    length: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position == self.length {
            if self.length > 0 {
                // The thread may have ended; then the buffer is done with.
                drop(self.used.send(std::mem::take(&mut self.current)));
                (self.position, self.length) = (0, 0);
            }
            match self.ready.recv() {
                Ok(Ok((current, length))) => (self.current, self.length) = (current, length),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.length - self.position);
        buffer[..count].copy_from_slice(&self.current[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields a pattern in odd pieces, then fails or ends.
    struct Pattern {
        left: usize,
        fails: bool,
    }

    impl Read for Pattern {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 && self.fails {
                return Err(io::Error::other("broken"));
            }
            let count = buffer.len().min(self.left).min(7777);
            for (at, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = u8::try_from((self.left - at) % 251).unwrap();
            }
            self.left -= count;
            Ok(count)
        }
    }

    #[test]
    fn the_same_bytes_come_out_and_errors_come_last() {
        for (length, fails) in [(0, false), (1, true), (3_000_000, false), (3_000_000, true)] {
            let mut direct = Vec::new();
            let expected = Pattern { left: length, fails }.read_to_end(&mut direct).is_ok();
            let mut through = Vec::new();
            let mut source = Pattern { left: length, fails };
            let found = read_ahead(&mut source, |ahead| ahead.read_to_end(&mut through).is_ok());
            assert_eq!((found, through.len()), (expected, direct.len()));
            assert!(through == direct);
        }
    }

    #[test]
    fn a_consumer_may_stop_early() {
        let mut source = Pattern { left: usize::MAX, fails: false };
        let mut buffer = [0; 10];
        read_ahead(&mut source, |ahead| ahead.read_exact(&mut buffer)).unwrap();
        // And even before the first byte.
        read_ahead(&mut source, |_| ());
    }
}
