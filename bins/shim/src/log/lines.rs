//! Output cut into lines of bounded length.

use super::encode;

/// Longest piece of a line, as in Docker.
pub(super) const LENGTH_MAX: usize = 16 << 10;

/// The unfinished line of a stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands out what is whole: lines with their newline, and pieces without one of lines that are too long, cut
    /// between characters.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LENGTH_MAX - self.partial.len();
            let window = &rest[..rest.len().min(room)];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let (piece, after) = rest.split_at(newline.map_or(window.len(), |at| at + 1));
            rest = after;
            if self.partial.is_empty() && newline.is_some() {
                each(piece);
                continue;
            }
            self.partial.extend_from_slice(piece);
            if newline.is_some() {
                each(&self.partial);
                self.partial.clear();
            } else if self.partial.len() >= LENGTH_MAX {
                let cut = encode::character_boundary(&self.partial);
                each(&self.partial[..cut]);
                self.partial.drain(..cut);
            }
        }
        if self.partial.is_empty() {
            // A stream at rest holds no memory.
            self.partial = Vec::new();
        }
    }

    /// Hands out the unfinished line of a stream that has ended.
    pub(super) fn finish(&mut self, each: impl FnOnce(&[u8])) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() {
            each(&partial);
        }
    }
}
