//! Addresses with a prefix length, and hardware addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An IP address with the prefix length of its network, as in `172.17.0.2/16`.
///
/// Both families are representable; the drivers of this version configure IPv4 only and say so when handed IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// Joins an address and a prefix length.
    ///
    /// # Errors
    /// `InvalidInput` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        if prefix > width(address) {
            return Err(Error::invalid(format!(
                "parse network \"{address}/{prefix}\": the prefix is too long"
            )));
        }
        Ok(Self { address, prefix })
    }

    /// The address, host bits included.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The network itself: the address with its host bits cleared.
    #[must_use]
    pub fn network(&self) -> Self {
        let bits = to_bits(self.address) & !self.host_mask();
        Self { address: from_bits(self.address, bits), prefix: self.prefix }
    }

    /// The last address of the network (the broadcast address in IPv4).
    #[must_use]
    pub fn last(&self) -> IpAddr {
        from_bits(self.address, to_bits(self.address) | self.host_mask())
    }

    /// The address `offset` places after the first one of the network, when it is inside.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= self.host_mask())
            .then(|| from_bits(self.address, to_bits(self.network().address) + offset))
    }

    /// How far `address` lies from the first address of the network, when it is inside.
    #[must_use]
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| to_bits(address) & self.host_mask())
    }

    /// The offset of the last address: one less than the size of the network.
    #[must_use]
    pub fn last_offset(&self) -> u128 {
        self.host_mask()
    }

    /// Whether the address belongs to this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && (to_bits(address) ^ to_bits(self.address)) & !self.host_mask() == 0
    }

    /// Whether any address belongs to both networks.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network().address) || other.contains(self.network().address)
    }

    /// The netmask of an IPv4 network.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    fn host_mask(&self) -> u128 {
        let host_bits = u32::from(width(self.address) - self.prefix);
        1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = Error;

    /// Reads `ADDRESS/PREFIX`; a bare address means the whole length.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!(
                "parse network \"{}\": want ADDRESS/PREFIX",
                text.escape_debug()
            ))
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix = match prefix {
            None => width(address),
            Some(digits)
                if digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                digits.parse().map_err(|_| bad())?
            }
            Some(_) => return Err(bad()),
        };
        Self::new(address, prefix)
    }
}

impl TryFrom<String> for IpNet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<IpNet> for String {
    fn from(network: IpNet) -> Self {
        network.to_string()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with these bits, in the family of `like`.
fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

/// An Ethernet address, written `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// A locally administered address derived from an IP address, so that neighbours' caches stay right when an
    /// address goes to a new container: `02:42` and the four octets in IPv4, `02:43` and the last four in IPv6.
    #[must_use]
    pub fn derived_from(address: IpAddr) -> Self {
        let (second, [a, b, c, d]) = match address {
            IpAddr::V4(address) => (0x42, address.octets()),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                (0x43, [a, b, c, d])
            }
        };
        Self([0x02, second, a, b, c, d])
    }

    /// The six octets in wire order.
    #[must_use]
    pub fn octets(&self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid(format!("parse MAC address \"{}\": {why}", text.escape_debug()))
        };
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(|| bad("want six octets"))?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad("want hexadecimal octets"))?;
        }
        if parts.next().is_some() {
            return Err(bad("want six octets"));
        }
        if octets[0] & 1 != 0 || octets == [0; 6] {
            return Err(bad("a link needs a unicast address"));
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn networks_know_their_bounds() {
        let network = net("172.17.5.9/16");
        assert_eq!(network.network(), net("172.17.0.0/16"));
        assert_eq!(network.last(), "172.17.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(network.nth(1), Some("172.17.0.1".parse().unwrap()));
        assert_eq!(network.nth(65_536), None);
        assert_eq!(network.offset("172.17.1.0".parse().unwrap()), Some(256));
        assert_eq!(network.offset("172.18.1.0".parse().unwrap()), None);
        assert_eq!(net("fd00::/64").nth(2), Some("fd00::2".parse().unwrap()));
        assert!(net("::/0").contains("ffff::".parse().unwrap()));
        assert!(!net("::/0").contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, expected) in [
            ("10.0.0.0/8", "10.1.2.0/24", true),
            ("10.0.0.0/8", "11.0.0.0/8", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("10.0.0.0/8", "fd00::/8", false),
        ] {
            assert_eq!(net(a).overlaps(&net(b)), expected, "{a} {b}");
            assert_eq!(net(b).overlaps(&net(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn malformed_networks_and_macs_are_refused() {
        for text in [
            "",
            "/",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3/8",
            "1.2.3.4/+8",
            "1.2.3.4/0008",
            "::/129",
            "a/8",
        ] {
            assert!(text.parse::<IpNet>().is_err(), "{text}");
        }
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "0g:42:ac:11:00:02",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
        let mac: MacAddress = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac, MacAddress::derived_from("172.17.0.2".parse().unwrap()));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
    }
}
