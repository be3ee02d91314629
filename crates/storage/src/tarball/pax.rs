//! Pax extended headers: records `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.

use std::collections::BTreeMap;

use super::Time;
use crate::error::{Error, Result};

/// The records of one extended header. A later record replaces an earlier one of the same key, as GNU tar and Go do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU sparse format 0.0 repeats its keys, so they are collected in order.
    pub(crate) sparse_numbers: Vec<u64>,
}

impl Records {
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self> {
        let mut records = Self::default();
        while !data.is_empty() {
            // GNU tar tolerates NUL padding at the end.
            if data.iter().all(|&byte| byte == 0) {
                break;
            }
            let (record, rest) = split_record(data)
                .ok_or_else(|| Error::integrity("a pax header of the archive is malformed"))?;
            data = rest;
            let equals = record.iter().position(|&byte| byte == b'=');
            let equals =
                equals.ok_or_else(|| Error::integrity("a pax record has no equals sign"))?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    records.sparse_numbers.push(parse_number(value)?);
                }
                _ => {
                    records.values.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(records)
    }

    /// A value; an empty one means that the ordinary header's field holds.
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        self.value(key).map(parse_number).transpose()
    }

    pub(crate) fn time(&self, key: &str) -> Result<Option<Time>> {
        self.value(key).map(parse_time).transpose()
    }

    /// The extended attributes: name and value.
    pub(crate) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            Some((name, value.as_slice()))
        })
    }
}

fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    if length > data.len() || length < space + 2 || data[length - 1] != b'\n' {
        return None;
    }
    Some((&data[space + 1..length - 1], &data[length..]))
}

pub(crate) fn parse_number(value: &[u8]) -> Result<u64> {
    let digits = value.first().is_some_and(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::integrity("a number in a pax header is malformed"))
}

/// `SECONDS[.FRACTION]`, possibly negative; digits beyond nanoseconds are dropped.
fn parse_time(value: &[u8]) -> Result<Time> {
    let malformed = || Error::integrity("a time in a pax header is malformed");
    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = fraction.as_bytes().get(at).map_or(0, |digit| u32::from(digit - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_later_records_win() {
        let records =
            Records::parse(b"30 SCHILY.xattr.user.a=x\ny=z\n\n12 size=100\n11 size=20\n8 path=\n");
        // The first record: 30 bytes including its own final newline.
        let records = records.unwrap();
        let xattrs: Vec<_> = records.xattrs().collect();
        assert_eq!(xattrs, [(&b"user.a"[..], &b"x\ny=z\n"[..])]);
        assert_eq!(records.number("size").unwrap(), Some(20));
        assert_eq!(records.value("path"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n\x01",
            b"999 a=b\n",
            b"2 \n",
            b"-1 a=b\n",
            b"6 abc\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert!(Records::parse(data).is_err(), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_and_signs() {
        let cases = [
            ("0", (0, 0)),
            ("1234.5", (1234, 500_000_000)),
            ("1234.1234567899", (1234, 123_456_789)),
            ("-1.25", (-2, 750_000_000)),
            ("-3", (-3, 0)),
        ];
        for (text, (seconds, nanoseconds)) in cases {
            assert_eq!(
                parse_time(text.as_bytes()).unwrap(),
                Time { seconds, nanoseconds },
                "{text}"
            );
        }
        for text in ["", "x", "1.x", "--1", "1e3", "99999999999999999999"] {
            assert!(parse_time(text.as_bytes()).is_err(), "{text}");
        }
    }
}
