//! json-file entries, encoded without an intermediate value: this runs for every line of every container.

/// Appends one entry and its newline.
pub(super) fn entry(output: &mut Vec<u8>, line: &[u8], stream: &str, time: &str) {
    output.reserve(line.len() + 80);
    output.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        escape(output, chunk.valid());
        if !chunk.invalid().is_empty() {
            output.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    output.extend_from_slice(b"\",\"stream\":\"");
    output.extend_from_slice(stream.as_bytes());
    output.extend_from_slice(b"\",\"time\":\"");
    output.extend_from_slice(time.as_bytes());
    output.extend_from_slice(b"\"}\n");
}

/// Where to cut a buffer that is full, so that no character is split: its end, or the start of the unfinished
/// character there.
pub(super) fn character_boundary(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for start in (tail..bytes.len()).rev() {
        let length = match bytes[start] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => break,
        };
        return if start + length > bytes.len() { start } else { bytes.len() };
    }
    bytes.len()
}

fn escape(output: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        output.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => output.extend_from_slice(b"\\\""),
            b'\\' => output.extend_from_slice(b"\\\\"),
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\t' => output.extend_from_slice(b"\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                output.extend_from_slice(b"\\u00");
                output.push(DIGITS[usize::from(control >> 4)]);
                output.push(DIGITS[usize::from(control & 15)]);
            }
        }
    }
    output.extend_from_slice(&bytes[start..]);
}
