//! Lists of numbers such as `0-3,8`, in which the kernel and the specification name processors and memory nodes.

/// Reads a list as a bitmap: number n is bit n % 8 of byte n / 8. `None` for what is no list, is empty, or names a number
/// of `most` or more.
pub(crate) fn bitmap(list: &str, most: usize) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok()?;
        if first > last || last >= most {
            return None;
        }
        bits.resize(bits.len().max(last / 8 + 1), 0);
        for number in first..=last {
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_bitmaps() {
        assert_eq!(bitmap("0", 8).unwrap(), [1]);
        assert_eq!(bitmap("1-3, 9", 16).unwrap(), [0b1110, 0b10]);
        for list in ["", ",", "x", "3-1", "0-99999", "-1", "16"] {
            assert!(bitmap(list, 16).is_none(), "{list}");
        }
    }
}
