use std::io::Write;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn open(stored: &[u8], digest: Digest, diff_id: Digest) -> Result<LayerReader> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(stored).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    LayerReader::new(Stored::Complete(file), digest, Some(diff_id))
}

fn read(stored: &[u8], diff: &[u8]) -> Result<Vec<u8>> {
    let mut reader = open(stored, Digest::of(stored), Digest::of(diff))?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| Error::recover(e).unwrap())?;
    reader.finish()?;
    Ok(bytes)
}

#[test]
fn every_compression_yields_the_same_tar() {
    let tar = b"some tar ".repeat(10_000);
    let (head, tail) = tar.split_at(12_345);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    for stored in [
        tar.clone(),
        gzip(&tar),
        [gzip(head), gzip(tail)].concat(),
        zstd(&tar),
        [zstd(head), zstd(tail)].concat(),
    ] {
        assert_eq!(read(&stored, &tar).unwrap(), tar);
    }
    assert_eq!(read(b"", b"").unwrap(), b"");
}

#[test]
fn a_wrong_diff_id_is_reported_at_the_end() {
    let error = read(&gzip(b"tar"), b"other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.to_string().contains("configuration says"), "{error}");
}

#[test]
fn damaged_bytes_never_pass() {
    let tar = b"some tar ".repeat(1000);
    let good = gzip(&tar);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for stored in [&flipped[..], &good[..good.len() - 9], &[&good[..], b"junk"].concat()] {
        let mut reader = open(stored, Digest::of(&good), Digest::of(&tar)).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert_eq!(Error::recover(error).unwrap().kind(), ErrorKind::Integrity);
    }
}

#[test]
fn stopping_at_the_end_of_the_tar_still_verifies_the_rest() {
    let tar = b"x".repeat(5000);
    let mut reader = open(&tar, Digest::of(&tar), Digest::of(b"other")).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    assert_eq!(reader.finish().unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn a_bomb_is_stopped_early() {
    // Zeros; Zstandard shrinks them some 30,000 times.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).unwrap();
    let stored = encoder.finish().unwrap();
    let mut reader = open(&stored, Digest::of(&stored), Digest::of(b"")).unwrap();
    reader.expansion_free = 8 << 20;
    let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
    assert_eq!(Error::recover(error).unwrap().kind(), ErrorKind::Exhausted);
    assert!(reader.produced() <= 9 << 20);
}
