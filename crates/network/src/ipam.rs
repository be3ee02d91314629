//! Address management: pure choices of subnets and addresses. The caller keeps the books.
//!
//! Pools, in order (smaller than Docker's /16 and /20, of which a host has only 31):
//!
//! ```text
//! 172.17.0.0/16                     the default network, as everybody expects it
//! 172.18.0.0/15 172.20.0.0/14
//! 172.24.0.0/13 192.168.0.0/16
//! 10.89.0.0/16                      every other network: the first free /24, 3,584 in all
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, ErrorKind, IpNet, Result, Subnet};

/// A subnet that something on this host uses already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// The addresses.
    pub network: IpNet,
    /// By what, for messages: `route through eth0`, `network backend`.
    pub owner: String,
}

/// The subnet that the default network prefers.
#[must_use]
pub fn default_subnet() -> IpNet {
    v4(172, 17, 16)
}

/// The pools for networks created without a subnet.
const POOLS: [(u8, u8, u8); 5] =
    [(172, 18, 15), (172, 20, 14), (172, 24, 13), (10, 89, 16), (192, 168, 16)];
const POOL_SUBNET_PREFIX: u8 = 24;

fn v4(first: u8, second: u8, prefix: u8) -> IpNet {
    let address = Ipv4Addr::new(first, second, 0, 0);
    IpNet::new(address.into(), prefix).unwrap_or_else(|_| unreachable!("a constant prefix fits"))
}

/// Chooses a free subnet: `preferred` when it is free, else the first free /24 of the pools.
///
/// # Errors
/// `Exhausted`, naming one conflict, when all are taken.
pub fn choose_subnet(preferred: Option<IpNet>, occupied: &[Occupied]) -> Result<IpNet> {
    let free = |candidate: &IpNet| conflict(*candidate, occupied).is_none();
    if let Some(preferred) = preferred.filter(free) {
        return Ok(preferred);
    }
    POOLS
        .into_iter()
        .flat_map(|(first, second, prefix)| subnets_of(v4(first, second, prefix)))
        .find(free)
        .ok_or_else(|| {
            let example = conflict(v4(172, 18, 15), occupied);
            let hint = example.map_or_else(String::new, |occupied| {
                format!(" (for example {} is used by {})", occupied.network, occupied.owner)
            });
            Error::new(
                ErrorKind::Exhausted,
                format!(
                    "choose a subnet: every address pool is in use{hint}; give one with --subnet"
                ),
            )
        })
}

fn subnets_of(pool: IpNet) -> impl Iterator<Item = IpNet> {
    let size = 1_u128 << (32 - POOL_SUBNET_PREFIX);
    (0..=pool.last_offset() / size)
        .filter_map(move |index| pool.nth(index * size))
        .filter_map(|address| IpNet::new(address, POOL_SUBNET_PREFIX).ok())
}

/// What of `occupied` overlaps a subnet.
#[must_use]
pub fn conflict(subnet: IpNet, occupied: &[Occupied]) -> Option<&Occupied> {
    occupied.iter().find(|other| other.network.overlaps(&subnet))
}

/// Checks that a subnet given by a user is free.
///
/// # Errors
/// `Conflict`, naming what uses it.
pub fn require_free(subnet: IpNet, occupied: &[Occupied]) -> Result<()> {
    match conflict(subnet, occupied) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "use subnet {subnet}: it overlaps with {} of {}; choose another one",
                other.network, other.owner
            ),
        )),
    }
}

/// Allocates a free address of a subnet: the first one after `last` (so that an address is not reused at once),
/// wrapping around; pass `None` to begin at the front.
///
/// # Errors
/// `Exhausted` when none is left.
pub fn allocate(subnet: &Subnet, used: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Result<IpNet> {
    let range = subnet.range.unwrap_or(subnet.network);
    let size = range.last_offset().saturating_add(1);
    let start = last.and_then(|last| range.offset(last)).map_or(0, |offset| offset + 1);
    // At most one candidate more than there are reserved addresses can be refused.
    let attempts = size.min(u128::try_from(used.len()).unwrap_or(u128::MAX).saturating_add(4));
    (0..attempts)
        .filter_map(|step| range.nth((start + step) % size))
        .find(|address| !reserved(subnet, *address) && !used.contains(address))
        .and_then(|address| IpNet::new(address, subnet.network.prefix()).ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                format!("allocate an address of {range}: all are in use; remove containers or use a larger subnet"),
            )
        })
}

/// Checks that an address given by a user can be had.
///
/// # Errors
/// `InvalidInput` outside of the subnet, `Conflict` when it is taken.
pub fn require_address(subnet: &Subnet, used: &BTreeSet<IpAddr>, address: IpAddr) -> Result<IpNet> {
    if !subnet.network.contains(address) {
        return Err(Error::invalid(format!(
            "use address {address}: it is outside of subnet {}",
            subnet.network
        )));
    }
    if reserved(subnet, address) || used.contains(&address) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("use address {address}: it is already in use"),
        ));
    }
    IpNet::new(address, subnet.network.prefix())
}

/// The network's own addresses: its name, its broadcast address and its gateway.
fn reserved(subnet: &Subnet, address: IpAddr) -> bool {
    address == subnet.gateway
        || address == subnet.network.network().address()
        || address == subnet.network.last()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn occupied(networks: &[&str]) -> Vec<Occupied> {
        networks
            .iter()
            .map(|text| Occupied {
                network: text.parse().unwrap(),
                owner: "route through tun0".into(),
            })
            .collect()
    }

    fn subnet(network: &str) -> Subnet {
        let network: IpNet = network.parse().unwrap();
        Subnet { network, gateway: network.nth(1).unwrap(), range: None }
    }

    #[test]
    fn the_preferred_subnet_is_used_when_free() {
        assert_eq!(choose_subnet(Some(default_subnet()), &[]).unwrap(), default_subnet());
        let taken = occupied(&["172.17.4.0/24"]);
        assert_eq!(
            choose_subnet(Some(default_subnet()), &taken).unwrap().to_string(),
            "172.18.0.0/24"
        );
    }

    #[test]
    fn occupied_pools_are_skipped_and_named_when_all_are() {
        let vpn = occupied(&["172.16.0.0/12"]);
        assert_eq!(choose_subnet(None, &vpn).unwrap().to_string(), "10.89.0.0/24");
        let all = occupied(&["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"]);
        let error = choose_subnet(None, &all).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(
            error.to_string().contains("172.16.0.0/12 is used by route through tun0"),
            "{error}"
        );
        let error = require_free("10.1.0.0/16".parse().unwrap(), &all).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("route through tun0"), "{error}");
    }

    #[test]
    fn addresses_run_out_exactly_when_all_are_used() {
        let subnet = subnet("10.0.0.0/29");
        let mut used = BTreeSet::new();
        let mut last = None;
        for _ in 0..5 {
            let address = allocate(&subnet, &used, last).unwrap().address();
            assert!(used.insert(address));
            last = Some(address);
        }
        assert_eq!(allocate(&subnet, &used, last).unwrap_err().kind(), ErrorKind::Exhausted);
        used.remove(&"10.0.0.4".parse().unwrap());
        assert_eq!(allocate(&subnet, &used, last).unwrap().to_string(), "10.0.0.4/29");
    }

    #[test]
    fn a_given_address_is_checked() {
        let subnet = subnet("10.0.0.0/24");
        let used = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
        let kind = |text: &str| {
            require_address(&subnet, &used, text.parse().unwrap()).map_err(|error| error.kind())
        };
        assert_eq!(kind("10.0.0.8").unwrap().to_string(), "10.0.0.8/24");
        assert_eq!(kind("10.0.1.8"), Err(ErrorKind::InvalidInput));
        for taken in ["10.0.0.9", "10.0.0.0", "10.0.0.1", "10.0.0.255"] {
            assert_eq!(kind(taken), Err(ErrorKind::Conflict), "{taken}");
        }
    }

    proptest! {
        #[test]
        fn allocation_never_hands_out_what_is_taken(
            prefix in 20_u8..=30,
            offsets in proptest::collection::btree_set(0_u128..4096, 0..64),
            last in proptest::option::of(0_u128..5000),
            range_prefix in proptest::option::of(20_u8..=32),
        ) {
            let network = IpNet::new("10.8.0.0".parse().unwrap(), prefix).unwrap();
            let range = range_prefix.filter(|range| *range >= prefix)
                .map(|range| IpNet::new(network.nth(0).unwrap(), range).unwrap());
            let subnet = Subnet { network, gateway: network.nth(1).unwrap(), range };
            let used: BTreeSet<IpAddr> = offsets.iter().filter_map(|offset| network.nth(*offset)).collect();
            let pool = range.unwrap_or(network);
            let free = (0..=pool.last_offset()).filter_map(|offset| pool.nth(offset))
                .filter(|address| !reserved(&subnet, *address) && !used.contains(address)).count();
            match allocate(&subnet, &used, last.and_then(|offset| network.nth(offset))) {
                Ok(address) => {
                    prop_assert!(pool.contains(address.address()));
                    prop_assert!(!used.contains(&address.address()));
                    prop_assert!(!reserved(&subnet, address.address()));
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), ErrorKind::Exhausted);
                    prop_assert_eq!(free, 0);
                }
            }
        }

        #[test]
        fn a_chosen_subnet_overlaps_nothing(networks in proptest::collection::vec((any::<u32>(), 8_u8..=32), 0..16)) {
            let occupied: Vec<_> = networks.iter().map(|(bits, prefix)| Occupied {
                network: IpNet::new(Ipv4Addr::from_bits(*bits).into(), *prefix).unwrap(),
                owner: "x".into(),
            }).collect();
            if let Ok(subnet) = choose_subnet(None, &occupied) {
                prop_assert!(conflict(subnet, &occupied).is_none());
            }
        }
    }
}
