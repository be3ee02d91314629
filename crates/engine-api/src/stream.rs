//! Framing of byte streams.
//!
//! Without a terminal, stdout and stderr share one connection as frames: `[stream, 0, 0, 0, length (u32, big endian)]`
//! and `length` bytes. With a terminal there is one stream and no framing. Progress, events and statistics are JSON
//! values, one a line.
//!
//! The decoders are incremental and bounded: [`FrameDecoder`] hands out payload as it arrives and never holds more
//! than a header; [`LineDecoder`] holds at most one line of [`MAX_LINE`] bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Content type of a framed stream.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// Content type of an unframed stream.
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";

/// Length of a frame's header.
pub const FRAME_HEADER: usize = 8;

/// Longest line that [`LineDecoder`] accepts, in bytes.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StdStream {
    /// Standard input; daemons echo it nowhere today, but the format has a place for it.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// A message from the daemon about why the stream ends.
    SystemError = 3,
}

impl TryFrom<u8> for StdStream {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            3 => Ok(Self::SystemError),
            _ => Err(FrameError(byte)),
        }
    }
}

/// Bytes that are not a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not multiplexed: a frame begins with byte {0}")]
pub struct FrameError(u8);

/// The header of a frame of `length` bytes.
#[must_use]
pub const fn frame_header(stream: StdStream, length: u32) -> [u8; FRAME_HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// `payload` as frames: one, or several where it is longer than 4 GiB.
#[must_use]
pub fn encode_frame(stream: StdStream, payload: &[u8]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(FRAME_HEADER + payload.len());
    for part in payload.chunks(u32::MAX as usize) {
        // Chunks are at most u32::MAX long.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        encoded.put_slice(&frame_header(stream, length));
        encoded.put_slice(part);
    }
    encoded.freeze()
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it was written.
    pub stream: StdStream,
    /// What was written; not necessarily a whole frame or line.
    pub data: Bytes,
}

/// Splits a framed stream. Holds no payload: what arrives in part is handed out in part.
#[derive(Clone, Debug, Default)]
pub struct FrameDecoder {
    current: Option<(StdStream, u64)>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of output from `input`; `None` when it needs more bytes.
    ///
    /// # Errors
    /// The bytes are not framed. The decoder cannot be used further.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Output>, FrameError> {
        loop {
            if let Some((stream, remaining)) = self.current {
                if input.is_empty() {
                    return Ok(None);
                }
                let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
                let remaining = remaining - length as u64;
                self.current = (remaining > 0).then_some((stream, remaining));
                return Ok(Some(Output { stream, data: input.split_to(length).freeze() }));
            }
            // Refuse what is not framed at its first byte: there may never be a whole header.
            let Some(first) = input.first() else { return Ok(None) };
            let stream = StdStream::try_from(*first)?;
            if input.len() < FRAME_HEADER {
                return Ok(None);
            }
            input.advance(4);
            let length = input.get_u32();
            self.current = (length > 0).then_some((stream, u64::from(length)));
        }
    }

    /// Whether the stream may end here: not within a frame. Bytes left in the input are the caller's to check.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.current.is_none()
    }
}

/// A line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than [`MAX_LINE`].
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Not the JSON expected.
    #[error("a line is not the JSON expected")]
    Json(#[source] serde_json::Error),
}

/// Splits a stream into lines and skips the empty ones.
#[derive(Clone, Debug, Default)]
pub struct LineDecoder {
    /// How much of the input is known to hold no newline.
    searched: usize,
}

impl LineDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its end, from `input`; `None` when it needs more bytes.
    ///
    /// # Errors
    /// [`LineError::TooLong`].
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, LineError> {
        loop {
            let Some(offset) = input[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = input.len();
                return if input.len() > MAX_LINE { Err(LineError::TooLong) } else { Ok(None) };
            };
            let mut line = input.split_to(self.searched + offset + 1);
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if line.len() > MAX_LINE {
                return Err(LineError::TooLong);
            }
            if !line.is_empty() {
                return Ok(Some(line.freeze()));
            }
        }
    }

    /// Takes what follows the last newline when the stream has ended.
    pub fn finish(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        self.searched = 0;
        let mut line = input.split();
        line.truncate(line.trim_ascii_end().len());
        (!line.is_empty()).then(|| line.freeze())
    }
}

/// `value` as a line of JSON.
///
/// # Errors
/// The value cannot be JSON, such as a map whose keys are not strings.
pub fn encode_json_line<T: serde::Serialize>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests;
