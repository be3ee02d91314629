//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`, the algorithms the OCI image specification registers.
//!
//! A [`Digest`] is valid by construction, lower-case, and safe as a file name: it can never hold a separator or `..`.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

use crate::{Error, Result};

/// A hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, what everyone uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every supported algorithm.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name, as in a digest and in an OCI layout.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of the hash in hexadecimal characters.
    #[must_use]
    pub const fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of a piece of content.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for an unknown algorithm,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything malformed, upper-case hex included.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(Error::invalid(format!("parse digest {text:?}: want algorithm:hex")));
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|known| known.name() == name) else {
            return Err(
                match name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b)) {
                    true if !name.is_empty() => Error::unsupported(format!(
                        "parse digest {text:?}: only sha256 and sha512 are supported"
                    )),
                    _ => Error::invalid(format!("parse digest {text:?}: malformed algorithm")),
                },
            );
        };
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(is_lower_hex) {
            let want = algorithm.hex_length();
            return Err(Error::invalid(format!(
                "parse digest {text:?}: want {want} lower-case hexadecimal characters"
            )));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }

    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash in lower-case hexadecimal, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve characters of the hash, as shown to people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

/// Whether `byte` is one of `0-9a-f`.
pub(crate) fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            State::Sha256(hash) => (Algorithm::Sha256, encode_hex(&hash.finalize())),
            State::Sha512(hash) => (Algorithm::Sha512, encode_hex(&hash.finalize())),
        };
        Digest { algorithm, hex: hex.into() }
    }

    /// Adds all that `reader` has left and returns how much that was.
    ///
    /// # Errors
    /// What the reader reports.
    pub fn drain(&mut self, reader: &mut impl Read) -> io::Result<u64> {
        io::copy(reader, self)
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    pairs.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashing_and_parsing_agree() {
        assert_eq!(Digest::of(b""), Digest::parse(EMPTY).unwrap());
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.to_uppercase();
        let long = format!("{EMPTY}0");
        for text in ["", ":", "sha256:", "sha256:zz", "sha256:../x", "e3b0", &upper, &long, "/:00"]
        {
            let error = Digest::parse(text).unwrap_err();
            let kinds = [ErrorKind::InvalidInput, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{text}");
        }
        assert_eq!(Digest::parse("md5:00").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
