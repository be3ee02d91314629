//! Entry points for the fuzzers; no part of the interface.

use bytes::BytesMut;

use crate::query::{self, Query};
use crate::stream::{FrameDecoder, LineDecoder};
use crate::{Filters, registry_auth::RegistryAuth};

/// Decodes a framed stream in two pieces.
pub fn frames(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let mut decoder = FrameDecoder::new();
    let mut input = BytesMut::new();
    for piece in [first, second] {
        input.extend_from_slice(piece);
        while let Ok(Some(output)) = decoder.decode(&mut input) {
            assert!(!output.data.is_empty());
        }
    }
}

/// Splits lines.
pub fn lines(data: &[u8]) {
    let mut decoder = LineDecoder::new();
    let mut input = BytesMut::from(data);
    while let Ok(Some(line)) = decoder.decode(&mut input) {
        assert!(!line.contains(&b'\n'));
    }
    let _ = decoder.finish(&mut input);
}

/// Parses filters; what parses must survive being encoded.
pub fn filters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(filters) = Filters::parse(text) {
        let again = Filters::parse(&filters.encode());
        assert!(again.is_ok());
    }
}

/// Decodes credentials.
pub fn registry_auth(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = RegistryAuth::decode(text);
}

/// Parses queries of all kinds of fields.
pub fn queries(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = query::ListContainers::parse(text);
    let _ = query::ContainerLogs::parse(text);
    let _ = query::SaveImages::parse(text);
    let _ = query::Resize::parse(text);
    let _ = query::ContainerStats::parse(text);
}
