//! Netlink attributes (struct nlattr): writing them behind a netfilter header, and walking over received ones.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK};

/// Sixteen registers of four bytes, numbered from 0 here (`NFT_REG32_00` on).
pub(crate) type Register = u8;

/// struct nfgenmsg, then netlink attributes, each padded to four bytes.
pub(crate) struct Attributes(pub(crate) Vec<u8>);

impl Attributes {
    pub(crate) fn new(family: u8) -> Self {
        Self(vec![family, 0, 0, 0])
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// `NFT_REG32_00` is 8.
    pub(crate) fn register(&mut self, kind: u16, register: Register) {
        self.number(kind, 8 + u32::from(register));
    }
}

/// Netlink attributes, up to the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head: &[u8; 4] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::FAMILY_INET;

    #[test]
    fn attributes_are_aligned_and_nests_know_their_length() {
        let mut attributes = Attributes::new(FAMILY_INET);
        attributes.nest(4, |hook| hook.text(1, "ab"));
        assert_eq!(attributes.0.len() % 4, 0);
        assert_eq!(attributes.0[..4], [1, 0, 0, 0]);
        assert_eq!(u16::from_ne_bytes([attributes.0[4], attributes.0[5]]), 12);
        assert_eq!(u16::from_ne_bytes([attributes.0[8], attributes.0[9]]), 7);
    }
}
