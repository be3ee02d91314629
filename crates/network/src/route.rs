//! Links, addresses and routes: rtnetlink(7) spoken in the terms of this crate.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use brig_linux::netlink::{Protocol, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::ipam::Occupied;
use crate::{InterfaceName, IpNet, MacAddress, Result};

/// A route socket in one network namespace.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
}

/// A link as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) bridge: bool,
    pub(crate) veth: bool,
    pub(crate) controller: Option<u32>,
    pub(crate) mtu: u32,
}

/// The veth pair of one endpoint.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host: &'a InterfaceName,
    pub(crate) alias: &'a str,
    pub(crate) bridge: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) container: &'a InterfaceName,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    /// Keeps this endpoint from its neighbours on the bridge, but not from the host.
    pub(crate) isolated: bool,
}

impl Routes {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    pub(crate) fn open_in(netns: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { socket: Socket::open_in(netns, Protocol::Route)? })
    }

    pub(crate) fn link(&mut self, name: &InterfaceName) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        let request = RouteNetlinkMessage::GetLink(message);
        match self.socket.get(&format!("look up link {name}"), &request) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Link::from_message(&message))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == brig_linux::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let replies = self.socket.dump("list links", &request)?;
        let links = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(&message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Creates a bridge without spanning tree, still down.
    pub(crate) fn create_bridge(
        &mut self,
        name: &InterfaceName,
        mac: MacAddress,
        mtu: u32,
    ) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            // A bridge without an address of its own changes it with its ports, and every neighbour's cache with it.
            LinkAttribute::Address(mac.octets().to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(
                    BridgeStpState::Disabled,
                )])),
            ]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        Ok(self.socket.request(
            &format!("create bridge {name}"),
            &request,
            NLM_F_CREATE | NLM_F_EXCL,
        )?)
    }

    /// Creates a veth pair with one end inside the container's namespace under its final name, and the other one as a
    /// port of the bridge; both down.
    pub(crate) fn create_veth(&mut self, pair: &VethPair<'_>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(pair.container.to_string()),
            LinkAttribute::Address(pair.mac.octets().to_vec()),
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::NetNsFd(pair.netns.as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(pair.host.to_string()),
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::Controller(pair.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        let operation = format!("create link {} with peer {}", pair.host, pair.container);
        Ok(self.socket.request(&operation, &request, NLM_F_CREATE | NLM_F_EXCL)?)
    }

    /// Marks the host's end, sets how the bridge treats it, and brings it up.
    pub(crate) fn raise_port(&mut self, index: u32, pair: &VethPair<'_>) -> Result<()> {
        let port = vec![
            InfoBridgePort::Isolated(pair.isolated),
            // Where br_netfilter is loaded, a container's connection to its own published port is rewritten within
            // the bridge and leaves through the port it came from.
            InfoBridgePort::HairpinMode(true),
        ];
        let mut message = up(index);
        message.attributes = vec![
            LinkAttribute::IfAlias(pair.alias.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(port)),
            ]),
        ];
        // RTM_NEWLINK without NLM_F_CREATE changes a link; RTM_SETLINK ignores a port's data.
        let request = RouteNetlinkMessage::NewLink(message);
        Ok(self.socket.request(&format!("set bridge port {} up", pair.host), &request, 0)?)
    }

    pub(crate) fn set_alias(&mut self, index: u32, alias: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        Ok(self.socket.request(
            &format!("mark link {index}"),
            &RouteNetlinkMessage::SetLink(message),
            0,
        )?)
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn set_controller(
        &mut self,
        index: u32,
        name: &InterfaceName,
        bridge: u32,
    ) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::Controller(bridge)];
        let request = RouteNetlinkMessage::SetLink(message);
        Ok(self.socket.request(&format!("plug link {name} into its bridge"), &request, 0)?)
    }

    pub(crate) fn set_up(&mut self, index: u32, name: &InterfaceName) -> Result<()> {
        let request = RouteNetlinkMessage::SetLink(up(index));
        Ok(self.socket.request(&format!("set link {name} up"), &request, 0)?)
    }

    /// Deletes a link; one that is gone already is fine.
    pub(crate) fn delete_link(&mut self, name: &InterfaceName) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_string())];
        let request = RouteNetlinkMessage::DelLink(message);
        match self.socket.request(&format!("delete link {name}"), &request, 0) {
            Err(error) if error.kind() != brig_linux::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Adds an address; one that is there already is fine.
    pub(crate) fn add_address(&mut self, index: u32, address: IpNet) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address());
        message.header.prefix_len = address.prefix();
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes = vec![
            AddressAttribute::Local(address.address()),
            AddressAttribute::Address(address.address()),
        ];
        if let IpAddr::V4(broadcast) = address.last() {
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.socket.request(
            &format!("add address {address}"),
            &request,
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Err(error) if error.kind() != brig_linux::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_default_route(&mut self, index: u32, gateway: IpAddr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(gateway),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes =
            vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(index)];
        let request = RouteNetlinkMessage::NewRoute(message);
        let operation = format!("set the default route through {gateway}");
        Ok(self.socket.request(&operation, &request, NLM_F_CREATE | NLM_F_REPLACE)?)
    }

    /// The MTU of the link that the IPv4 default route of least metric uses.
    pub(crate) fn default_route_mtu(&mut self) -> Result<Option<u32>> {
        let routes = self.routes()?;
        let index = routes
            .iter()
            .filter(|route| route.header.destination_prefix_length == 0 && is_main(route))
            .filter_map(|route| Some((metric(route), output(route)?)))
            .min()
            .map(|(_, index)| index);
        let Some(index) = index else { return Ok(None) };
        Ok(self.links()?.into_iter().find(|link| link.index == index).map(|link| link.mtu))
    }

    /// The IPv4 networks that this namespace's routes and addresses use; the default route aside.
    pub(crate) fn occupied(&mut self) -> Result<Vec<Occupied>> {
        let links = self.links()?;
        let name = |index: u32| {
            links
                .iter()
                .find(|link| link.index == index)
                .map_or_else(|| format!("link {index}"), |link| link.name.clone())
        };
        let mut occupied = Vec::new();
        for route in self.routes()? {
            let prefix = route.header.destination_prefix_length;
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    Some(IpAddr::V4(*address))
                }
                _ => None,
            });
            if let (Some(address), true, true) = (destination, prefix > 0, is_main(&route)) {
                let owner = output(&route).map_or_else(
                    || "a route".into(),
                    |index| format!("the route through {}", name(index)),
                );
                occupied.push(Occupied { network: IpNet::new(address, prefix)?, owner });
            }
        }
        for (network, index) in self.addresses()? {
            occupied.push(Occupied { network, owner: format!("an address of {}", name(index)) });
        }
        Ok(occupied)
    }

    fn addresses(&mut self) -> Result<Vec<(IpNet, u32)>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let replies =
            self.socket.dump("list addresses", &RouteNetlinkMessage::GetAddress(message))?;
        let mut addresses = Vec::new();
        for reply in replies {
            let RouteNetlinkMessage::NewAddress(message) = reply else { continue };
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            if let Some(address) = address {
                addresses.push((
                    IpNet::new(address, message.header.prefix_len)?.network(),
                    message.header.index,
                ));
            }
        }
        Ok(addresses)
    }

    fn routes(&mut self) -> Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let replies = self.socket.dump("list routes", &RouteNetlinkMessage::GetRoute(message))?;
        let routes = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(routes.collect())
    }
}

impl AsFd for Routes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: None,
            bridge: false,
            veth: false,
            controller: None,
            mtu: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                _ => {}
            }
        }
        link
    }
}

fn up(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn is_main(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}
