use proptest::prelude::*;

use super::*;

/// Feeds `encoded` in pieces of the given sizes and returns what comes out, joined per run of one stream.
fn decode_in_pieces(
    encoded: &[u8],
    sizes: &[usize],
) -> Result<Vec<(StdStream, Vec<u8>)>, FrameError> {
    let mut decoder = FrameDecoder::new();
    let mut input = BytesMut::new();
    let mut outputs: Vec<(StdStream, Vec<u8>)> = Vec::new();
    let mut rest = encoded;
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = tail;
        input.extend_from_slice(piece);
        while let Some(Output { stream, data }) = decoder.decode(&mut input)? {
            assert!(!data.is_empty());
            match outputs.last_mut() {
                Some((last, bytes)) if *last == stream => bytes.extend_from_slice(&data),
                _ => outputs.push((stream, data.to_vec())),
            }
        }
        assert!(input.len() < FRAME_HEADER, "payload was held back");
    }
    assert!(decoder.is_complete() && input.is_empty());
    Ok(outputs)
}

fn any_stream() -> impl Strategy<Value = StdStream> {
    (0u8..4).prop_map(|byte| StdStream::try_from(byte).unwrap())
}

proptest! {
    #[test]
    fn frames_survive_any_fragmentation(
        frames in proptest::collection::vec((any_stream(), proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
        sizes in proptest::collection::vec(1usize..30, 1..8),
    ) {
        let mut encoded = Vec::new();
        let mut expected: Vec<(StdStream, Vec<u8>)> = Vec::new();
        for (stream, payload) in frames {
            encoded.extend_from_slice(&encode_frame(stream, &payload));
            match expected.last_mut() {
                _ if payload.is_empty() => {}
                Some((last, bytes)) if *last == stream => bytes.extend_from_slice(&payload),
                _ => expected.push((stream, payload)),
            }
        }
        prop_assert_eq!(decode_in_pieces(&encoded, &sizes).unwrap(), expected);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut input = BytesMut::from(bytes.as_slice());
        let mut decoder = FrameDecoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut input) {}
    }

    #[test]
    fn lines_survive_any_fragmentation(
        lines in proptest::collection::vec("[a-z \r]{0,20}", 0..10),
        size in 1usize..9,
    ) {
        let encoded = lines.join("\n");
        let mut decoder = LineDecoder::new();
        let mut input = BytesMut::new();
        let mut decoded = Vec::new();
        for piece in encoded.as_bytes().chunks(size) {
            input.extend_from_slice(piece);
            while let Some(line) = decoder.decode(&mut input).unwrap() {
                decoded.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        decoded.extend(decoder.finish(&mut input).map(|line| String::from_utf8(line.to_vec()).unwrap()));
        let expected: Vec<&str> =
            lines.iter().map(|line| line.trim_ascii_end()).filter(|line| !line.is_empty()).collect();
        prop_assert_eq!(decoded, expected);
    }
}

#[test]
fn a_frame_has_the_documented_bytes() {
    let frame = encode_frame(StdStream::Stderr, b"hi");
    assert_eq!(&frame[..], [2, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    assert!(encode_frame(StdStream::Stdout, b"").is_empty());
}

#[test]
fn bytes_that_are_no_frame_are_refused_at_once() {
    let mut input = BytesMut::from(&b"hello"[..]);
    let error = FrameDecoder::new().decode(&mut input).unwrap_err();
    assert!(error.to_string().contains("104"));
}

#[test]
fn payload_is_handed_out_before_its_frame_is_complete() {
    let mut input = BytesMut::from(&frame_header(StdStream::Stdout, u32::MAX)[..]);
    input.extend_from_slice(b"abc");
    let mut decoder = FrameDecoder::new();
    let output = decoder.decode(&mut input).unwrap().unwrap();
    assert_eq!(&output.data[..], b"abc");
    assert!(!decoder.is_complete());
}

#[test]
fn endless_lines_are_refused() {
    let mut input = BytesMut::zeroed(MAX_LINE + 1);
    assert!(matches!(LineDecoder::new().decode(&mut input), Err(LineError::TooLong)));
}
