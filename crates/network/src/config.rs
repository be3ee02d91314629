//! Networks and endpoints as their owner describes them: validated values without any kernel state.
//!
//! Every name of a kernel object derives from these values, so whatever a crash leaves can be found again:
//!
//! ```text
//! bridge           NetworkConfig::bridge, or "br-" + the first 12 digits of the network id
//! host end of veth "veth" + 11 digits of a hash of network id and endpoint id
//! alias of both    "brig:" + instance + ":" + network id
//! nft table        the instance's name, family inet
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, IpNet, MacAddress, PortMapping, Result};

/// IFNAMSIZ less the terminating NUL (linux/if.h).
const INTERFACE_NAME_MAX: usize = 15;
/// Ids are echoed into link aliases (IFALIASZ is 256) and logs.
const ID_MAX: usize = 100;
/// The smallest MTU that IPv4 allows (RFC 791).
const MTU_MIN: u32 = 68;
const MTU_MAX: u32 = 65_535;
/// The most mappings of one endpoint: every port of both protocols would be twice as many.
const PORTS_MAX: usize = 65_536;

/// How a network attaches its containers. Closed: a name from outside never selects a program to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge per network, a veth pair per endpoint.
    Bridge,
    /// The host's own network namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// The namespace of another container.
    Container,
}

impl Driver {
    /// The name used by the Docker Engine API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "null",
            Self::Container => "container",
        }
    }
}

impl std::str::FromStr for Driver {
    type Err = Error;

    /// Reads a driver of the Engine API: `bridge`, `host`, `null` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bridge" | "default" | "" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "null" | "none" => Ok(Self::None),
            _ => Err(Error::invalid(format!(
                "choose network driver \"{}\": known drivers are bridge, host and none",
                text.escape_debug()
            ))),
        }
    }
}

/// The name of a network interface: 1 to 15 visible ASCII characters without `/`, `:` and quotes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks a name by the kernel's rules (`dev_valid_name`) and a little more, since names are printed.
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule broken.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let good =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
        if name.is_empty() || name.len() > INTERFACE_NAME_MAX || name == "." || name == ".." {
            return Err(Error::invalid(format!(
                "name an interface \"{}\": want 1 to {INTERFACE_NAME_MAX} characters",
                name.escape_debug()
            )));
        }
        if !name.bytes().all(good) {
            return Err(Error::invalid(format!(
                "name an interface \"{}\": want letters, digits, '-', '_', '.' or '@'",
                name.escape_debug()
            )));
        }
        Ok(Self(name))
    }

    /// `eth0`, `eth1`, ...: the names that containers see.
    #[must_use]
    pub fn ethernet(index: u16) -> Self {
        Self(format!("eth{index}"))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For names made here, of known characters and length.
    pub(crate) fn derived(name: String) -> Self {
        debug_assert!(name.len() <= INTERFACE_NAME_MAX);
        Self(name)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

/// One address range of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The whole network, host bits zero.
    pub network: IpNet,
    /// The bridge's own address and the containers' default route.
    pub gateway: IpAddr,
    /// Where addresses are allocated from; the whole network when absent.
    pub range: Option<IpNet>,
}

/// A network to create. Check with [`validate`](Self::validate); every operation does so again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Unique id: letters and digits; 64 hexadecimal digits under the manager.
    pub id: String,
    /// The users' name, for messages.
    pub name: String,
    /// How containers attach.
    pub driver: Driver,
    /// The bridge's name; derived from the id when absent.
    pub bridge: Option<InterfaceName>,
    /// The address ranges; a bridge network needs one of IPv4.
    pub subnets: Vec<Subnet>,
    /// The MTU of every link; that of the host's default route when absent.
    pub mtu: Option<u32>,
    /// No way in or out: no default route, no forwarding, no published ports.
    pub internal: bool,
    /// Whether endpoints of this network may speak to each other.
    pub inter_container: bool,
    /// Whether outgoing traffic takes the host's address.
    pub masquerade: bool,
    /// Driver options nobody here reads; kept for `inspect`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl NetworkConfig {
    /// A bridge network with Docker's defaults on one subnet, whose gateway is the first address.
    ///
    /// # Errors
    /// `InvalidInput` for an id, name or subnet that cannot be used.
    pub fn bridge(id: impl Into<String>, name: impl Into<String>, network: IpNet) -> Result<Self> {
        let network = network.network();
        let gateway = network.nth(1).ok_or_else(|| {
            Error::invalid(format!("use subnet {network}: it has no room for a gateway"))
        })?;
        let config = Self {
            id: id.into(),
            name: name.into(),
            driver: Driver::Bridge,
            bridge: None,
            subnets: vec![Subnet { network, gateway, range: None }],
            mtu: None,
            internal: false,
            inter_container: true,
            masquerade: true,
            options: BTreeMap::new(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every rule that needs no kernel.
    ///
    /// # Errors
    /// `InvalidInput` naming the field; `Unsupported` for IPv6 subnets.
    pub fn validate(&self) -> Result<()> {
        check_id("network", &self.id)?;
        if self.driver != Driver::Bridge {
            return Ok(());
        }
        if let Some(mtu) = self.mtu
            && !(MTU_MIN..=MTU_MAX).contains(&mtu)
        {
            return Err(Error::invalid(format!(
                "configure network {}: MTU {mtu} is not within {MTU_MIN} to {MTU_MAX}",
                self.name.escape_debug()
            )));
        }
        if self.subnets.len() > 1 {
            return Err(Error::new(
                crate::ErrorKind::Unsupported,
                format!(
                    "configure network {}: one subnet per network is supported",
                    self.name.escape_debug()
                ),
            ));
        }
        self.subnet()?.validate()
    }

    /// The subnet of a bridge network.
    ///
    /// # Errors
    /// `InvalidInput` when there is none.
    pub fn subnet(&self) -> Result<&Subnet> {
        self.subnets.first().ok_or_else(|| {
            Error::invalid(format!(
                "configure network {}: it has no subnet",
                self.name.escape_debug()
            ))
        })
    }

    /// The name of the bridge, given or derived.
    #[must_use]
    pub fn bridge_name(&self) -> InterfaceName {
        self.bridge.clone().unwrap_or_else(|| {
            let digits: String = self.id.chars().take(12).collect();
            InterfaceName::derived(format!("br-{digits}"))
        })
    }
}

impl Subnet {
    /// Checks that gateway and range lie inside and leave room for containers.
    ///
    /// # Errors
    /// `InvalidInput` naming what is wrong; `Unsupported` for IPv6.
    pub fn validate(&self) -> Result<()> {
        let network = self.network;
        let bad = |why: String| Err(Error::invalid(format!("use subnet {network}: {why}")));
        if !network.is_ipv4() {
            return Err(Error::new(
                crate::ErrorKind::Unsupported,
                format!(
                    "use subnet {network}: IPv6 networks are not supported yet; choose an IPv4 subnet"
                ),
            ));
        }
        if network.network() != network {
            return bad(format!("host bits are set; did you mean {}?", network.network()));
        }
        if !(1..=30).contains(&network.prefix()) {
            return bad("choose a prefix length from 1 to 30".into());
        }
        let first_octet = match network.address() {
            IpAddr::V4(address) => address.octets()[0],
            IpAddr::V6(_) => 0,
        };
        if first_octet == 0 || first_octet == 127 || first_octet >= 224 {
            return bad(
                "these addresses are reserved; choose a private range such as 10.89.0.0/24".into(),
            );
        }
        if !network.contains(self.gateway)
            || self.gateway == network.address()
            || self.gateway == network.last()
        {
            return bad(format!("gateway {} is not an address of it", self.gateway));
        }
        match self.range {
            Some(range)
                if !network.contains(range.network().address())
                    || range.prefix() < network.prefix() =>
            {
                bad(format!("range {range} lies outside"))
            }
            _ => Ok(()),
        }
    }
}

/// One container's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's id.
    pub id: String,
    /// The container's network namespace, as made by [`netns::create`](crate::netns::create).
    pub netns: PathBuf,
    /// The interface's name inside, `eth0` for the first.
    pub interface: InterfaceName,
    /// Its hardware address; see [`MacAddress::derived_from`].
    pub mac: MacAddress,
    /// Its address with the subnet's prefix length.
    pub address: IpNet,
    /// The default route through this network; `None` when another network of the container provides it, and
    /// always in an internal network. See [`Endpoint::gateway_of`].
    pub gateway: Option<IpAddr>,
    /// Published ports, each with its host port decided (by [`PortReservation`](crate::PortReservation)).
    pub ports: Vec<PortMapping>,
}

impl Endpoint {
    /// An endpoint with everything derivable derived, without published ports.
    #[must_use]
    pub fn new(id: impl Into<String>, netns: impl Into<PathBuf>, address: IpNet) -> Self {
        Self {
            id: id.into(),
            netns: netns.into(),
            interface: InterfaceName::ethernet(0),
            mac: MacAddress::derived_from(address.address()),
            address,
            gateway: None,
            ports: Vec::new(),
        }
    }

    /// Which of a container's networks provides the default route: the first by name that is not internal and
    /// has one, as in Docker.
    #[must_use]
    pub fn gateway_of<'a>(
        networks: impl IntoIterator<Item = &'a NetworkConfig>,
    ) -> Option<&'a NetworkConfig> {
        networks
            .into_iter()
            .filter(|network| {
                network.driver == Driver::Bridge && !network.internal && !network.subnets.is_empty()
            })
            .min_by(|a, b| a.name.cmp(&b.name))
    }

    /// Checks the endpoint against its network.
    ///
    /// # Errors
    /// `InvalidInput` naming what does not fit.
    pub fn validate(&self, network: &NetworkConfig) -> Result<()> {
        check_id("endpoint", &self.id)?;
        network.validate()?;
        let subnet = network.subnet()?;
        let bad = |why: String| {
            Err(Error::invalid(format!(
                "connect to network {}: {why}",
                network.name.escape_debug()
            )))
        };
        let address = self.address.address();
        if !subnet.network.contains(address) || self.address.prefix() != subnet.network.prefix() {
            return bad(format!(
                "address {} does not belong to subnet {}",
                self.address, subnet.network
            ));
        }
        if address == subnet.gateway
            || address == subnet.network.address()
            || address == subnet.network.last()
        {
            return bad(format!("address {address} is taken by the network itself"));
        }
        match self.gateway {
            Some(gateway) if network.internal => {
                return bad(format!(
                    "an internal network has no default route (through {gateway})"
                ));
            }
            Some(gateway) if !subnet.network.contains(gateway) => {
                return bad(format!("gateway {gateway} is outside of subnet {}", subnet.network));
            }
            _ => {}
        }
        if self.ports.len() > PORTS_MAX {
            return bad(format!("{} published ports are more than {PORTS_MAX}", self.ports.len()));
        }
        match self.ports.iter().find(|port| port.host_port == 0 || port.container_port == 0) {
            Some(port) => bad(format!("published port {port} has no port number")),
            None => Ok(()),
        }
    }

    /// The name of the veth end that stays in the host.
    #[must_use]
    pub fn host_interface(&self, network: &NetworkConfig) -> InterfaceName {
        let hash = fnv1a(network.id.bytes().chain([b'/']).chain(self.id.bytes()));
        InterfaceName::derived(format!("veth{:011x}", hash & 0xfff_ffff_ffff))
    }
}

/// FNV-1a, 64 bits: stable between versions, which `std`'s hasher does not promise, and enough for a name.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn check_id(what: &str, id: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(good) {
        return Err(Error::invalid(format!(
            "use {what} id \"{}\": want 1 to {ID_MAX} letters, digits, '-', '_' or '.'",
            id.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
