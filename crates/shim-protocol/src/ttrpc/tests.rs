use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn frames() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    prop::collection::vec((any::<u32>(), payload), 0..8)
}

proptest! {
    #[test]
    fn frames_survive_any_fragmentation(
        frames in frames(),
        cuts in prop::collection::vec(1_usize..40, 1..50),
    ) {
        let mut wire = Vec::new();
        for (stream, payload) in &frames {
            let response = Response { status: None, payload: payload.clone() };
            wire.extend(encode_frame(Kind::Response, *stream, &response).unwrap());
        }
        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        let mut rest = &*wire;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = after;
            while let Some(frame) = decoder.next(&mut piece).unwrap() {
                decoded.push((frame.stream, Response::decode(&*frame.payload).unwrap().payload));
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert!(decoder.is_empty());
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn garbage_is_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::new();
        let mut input = &*bytes;
        while let Ok(Some(frame)) = decoder.next(&mut input) {
            prop_assert!(frame.payload.len() <= bytes.len());
            let _unchecked = Request::decode(&*frame.payload);
        }
        prop_assert!(decoder.buffer.len() <= bytes.len());
    }

    #[test]
    fn headers_round_trip(length in 0..=4_194_304_u32, stream: u32, flags: u8, kind in 1_u8..=3) {
        let kind = [Kind::Request, Kind::Response, Kind::Data][usize::from(kind - 1)];
        let header = Header { length, stream, kind, flags };
        prop_assert_eq!(Header::parse(header.to_bytes()).unwrap(), header);
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header() {
    let mut bytes = Header { length: 0, stream: 1, kind: Kind::Request, flags: 0 }.to_bytes();
    bytes[..4].copy_from_slice(&(4_194_305_u32).to_be_bytes());
    let mut decoder = Decoder::new();
    let error = decoder.next(&mut &bytes[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    let payload = vec![0; MESSAGE_LENGTH_MAX + 1];
    let response = Response { status: None, payload };
    assert_eq!(
        encode_frame(Kind::Response, 1, &response).unwrap_err().kind(),
        ErrorKind::Exhausted
    );
}

#[test]
fn a_status_becomes_an_error_with_its_code() {
    let status = Status::new(Code::NotFound, "no such container");
    let response = Response { status: Some(status), payload: Vec::new() };
    let error = response.into_payload("State").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some(Code::NotFound)));
    assert_eq!(error.to_string(), "State: no such container");
    let fine = Response { status: Some(Status::new(Code::Ok, "")), payload: vec![1] };
    assert_eq!(fine.into_payload("State").unwrap(), [1]);
}
