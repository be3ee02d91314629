//! Maps of sparse files: the old GNU format in header blocks, and the pax formats 0.0, 0.1 and 1.0.

use std::io::Read;

use super::pax::{Records, parse_number};
use super::{Limits, over_limit};
use crate::error::{Attempt, Error, Result};

/// A run of stored bytes at an offset of the file; what no piece covers is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Pieces must ascend, stay inside the file, and be exactly what is stored.
pub(crate) fn check(pieces: &[Piece], file_size: u64, stored: u64) -> Result<()> {
    let refuse = || Error::integrity("the map of a sparse file in the archive is inconsistent");
    let mut end = 0_u64;
    let mut total = 0_u64;
    for piece in pieces {
        if piece.offset < end {
            return Err(refuse());
        }
        end = piece.offset.checked_add(piece.length).ok_or_else(refuse)?;
        total = total.checked_add(piece.length).ok_or_else(refuse)?;
    }
    if end > file_size || total != stored { Err(refuse()) } else { Ok(()) }
}

/// The pieces of an old GNU header, continued in extension blocks that precede the content.
pub(crate) fn from_gnu_header(
    header: &tar::GnuHeader,
    reader: &mut impl Read,
    limits: &Limits,
) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    push_gnu(&mut pieces, &header.sparse, limits)?;
    let mut extended = header.is_extended();
    while extended {
        let mut block = tar::GnuExtSparseHeader::new();
        reader
            .read_exact(block.as_mut_bytes())
            .attempt(|| "read the map of a sparse file".into())?;
        push_gnu(&mut pieces, block.sparse(), limits)?;
        extended = block.is_extended();
    }
    Ok(pieces)
}

fn push_gnu(
    pieces: &mut Vec<Piece>,
    headers: &[tar::GnuSparseHeader],
    limits: &Limits,
) -> Result<()> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        let malformed = |_| Error::integrity("the map of a sparse file is malformed");
        let piece = Piece {
            offset: header.offset().map_err(malformed)?,
            length: header.length().map_err(malformed)?,
        };
        push(pieces, piece, limits)?;
    }
    Ok(())
}

fn push(pieces: &mut Vec<Piece>, piece: Piece, limits: &Limits) -> Result<()> {
    if pieces.len() >= limits.sparse_pieces_max {
        return Err(over_limit("pieces of a sparse file"));
    }
    pieces.push(piece);
    Ok(())
}

fn push_pairs(numbers: &[u64], limits: &Limits) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for pair in numbers.chunks(2) {
        let [offset, length] = *pair else {
            return Err(Error::integrity("the map of a sparse file has an odd number of values"));
        };
        push(&mut pieces, Piece { offset, length }, limits)?;
    }
    Ok(pieces)
}

/// The pieces that pax formats 0.0 and 0.1 keep in the header itself.
pub(crate) fn from_records(records: &Records, limits: &Limits) -> Result<Option<Vec<Piece>>> {
    if let Some(map) = records.value("GNU.sparse.map") {
        let numbers: Result<Vec<u64>> = map.split(|&byte| byte == b',').map(parse_number).collect();
        return push_pairs(&numbers?, limits).map(Some);
    }
    if records.sparse_numbers.is_empty() {
        return Ok(None);
    }
    push_pairs(&records.sparse_numbers, limits).map(Some)
}

/// Whether the map stands at the start of the content (pax format 1.0).
pub(crate) fn map_is_in_content(records: &Records) -> Result<bool> {
    match (records.number("GNU.sparse.major")?, records.number("GNU.sparse.minor")?) {
        (Some(1), Some(0)) => Ok(true),
        (None | Some(0), _) => Ok(false),
        _ => Err(Error::integrity("the archive holds a sparse file of an unknown format")),
    }
}

/// Reads a format 1.0 map: decimal numbers, one a line, padded to a block. Returns it with the bytes used.
pub(crate) fn from_content(reader: &mut impl Read, limits: &Limits) -> Result<(Vec<Piece>, u64)> {
    let mut block = [0; 512];
    let mut used = 0_u64;
    let mut line = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    loop {
        reader.read_exact(&mut block).attempt(|| "read the map of a sparse file".into())?;
        used += 512;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(Error::integrity("the map of a sparse file is malformed"));
                }
                continue;
            }
            numbers.push(parse_number(&line)?);
            line.clear();
            let count = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
            if count > limits.sparse_pieces_max {
                return Err(over_limit("pieces of a sparse file"));
            }
            if numbers.len() == 1 + 2 * count {
                return Ok((push_pairs(&numbers[1..], limits)?, used));
            }
        }
    }
}
