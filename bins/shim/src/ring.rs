//! A limit on what waits for a logger that is behind: whole lines are dropped, counted, and told once there is room.

/// The least limit: what is read of a stream in one go should fit.
const LIMIT_MIN: usize = 32 << 10;

/// Decides what of a stream's output is kept.
#[derive(Debug)]
pub(crate) struct Ring {
    limit: usize,
    /// The last byte kept was not a newline.
    mid_line: bool,
    /// What comes is being dropped.
    dropping: bool,
    /// Lines dropped since the last that was kept.
    dropped: u64,
}

impl Ring {
    /// A ring in which about `limit` bytes may wait.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(LIMIT_MIN), mid_line: false, dropping: false, dropped: 0 }
    }

    /// What of `bytes` to send while `waiting` bytes wait already.
    pub(crate) fn admit(&mut self, waiting: usize, bytes: &[u8]) -> Vec<u8> {
        let mut admitted = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if !self.dropping {
                if waiting + admitted.len() + piece.len() <= self.limit {
                    admitted.extend_from_slice(piece);
                    self.mid_line = !ends;
                    continue;
                }
                self.dropping = true;
                if std::mem::take(&mut self.mid_line) {
                    admitted.push(b'\n');
                }
            }
            if ends {
                self.dropped += 1;
                // Between lines, and with room to spare, so that notes do not become the log.
                if waiting + admitted.len() <= self.limit / 2 {
                    self.resume(&mut admitted);
                }
            }
        }
        admitted
    }

    /// What is left to tell when the stream has ended.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut note = Vec::new();
        if self.dropping {
            self.dropped += u64::from(self.dropped == 0);
            self.resume(&mut note);
        }
        note
    }

    fn resume(&mut self, output: &mut Vec<u8>) {
        let lines = std::mem::take(&mut self.dropped);
        let note = format!("brig: {lines} log lines are missing: the log could not keep up\n");
        output.extend_from_slice(note.as_bytes());
        self.dropping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_dropped_counted_and_told() {
        let mut ring = Ring::new(0);
        assert_eq!(ring.admit(0, b"one\ntw"), b"one\ntw");
        // Full: the line that was begun is ended, and no more comes.
        assert_eq!(ring.admit(LIMIT_MIN, b"o\nthree\nfo"), b"\n");
        assert_eq!(ring.admit(LIMIT_MIN, b"ur\n"), b"");
        // Room again: between lines.
        let admitted = ring.admit(0, b"five\nsix\n");
        let expected = "brig: 4 log lines are missing: the log could not keep up\nsix\n";
        assert_eq!(String::from_utf8(admitted).unwrap(), expected);
        assert_eq!(ring.finish(), b"");
        assert_eq!(ring.admit(LIMIT_MIN, b"cut"), b"");
        assert!(ring.finish().starts_with(b"brig: 1 log lines"));
    }

    #[test]
    fn what_fits_goes_through_unchanged() {
        let mut ring = Ring::new(1 << 20);
        let bytes = b"0123456789\n".repeat(5000);
        assert!(ring.admit(0, &bytes) == bytes);
    }
}
