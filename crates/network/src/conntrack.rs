//! Forgetting tracked connections (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The kernel decides about translation once, when a connection begins. A UDP client that keeps sending would go on to
//! reach the former owner of an address or port, so what concerns it is forgotten when an endpoint comes or goes.

use std::net::Ipv4Addr;

use brig_linux::netlink::{Protocol as NetlinkProtocol, Socket};

use crate::nft::{Attributes, FAMILY_IPV4, attributes};
use crate::{PortMapping, Protocol, Result};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// struct nfgenmsg
const HEADER_LENGTH: usize = 4;

/// Forgets what involves the address, and non-translated UDP flows to the published ports.
pub(crate) fn forget(address: Ipv4Addr, ports: &[PortMapping]) -> Result<()> {
    let mut socket = Socket::open(NetlinkProtocol::Netfilter)?;
    let mut found = Vec::new();
    let all = Attributes::new(FAMILY_IPV4).0;
    socket.dump_raw("list tracked connections", GET, &all, &mut |_, payload| {
        let Some(connection) = payload.get(HEADER_LENGTH..).and_then(Connection::parse) else {
            return;
        };
        if connection.involves(address) || ports.iter().any(|port| connection.bypasses(port)) {
            found.push(connection.deletion());
        }
    })?;
    for request in found {
        match socket.request_raw("forget a tracked connection", DELETE, 0, &request) {
            // It ended meanwhile.
            Err(error) if error.kind() == brig_linux::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

struct Connection<'a> {
    original: Tuple,
    reply: Tuple,
    raw: Vec<(u16, &'a [u8])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    destination_port: u16,
}

impl<'a> Connection<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let find =
            |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let raw = attributes(bytes)
            .filter(|(kind, _)| matches!(*kind, TUPLE_ORIGINAL | ID | ZONE))
            .collect();
        Some(Self {
            original: Tuple::parse(find(TUPLE_ORIGINAL)?)?,
            reply: Tuple::parse(find(TUPLE_REPLY)?)?,
            raw,
        })
    }

    fn involves(&self, address: Ipv4Addr) -> bool {
        self.original.source == address
            || self.original.destination == address
            || self.reply.source == address
    }

    /// A UDP flow to the published port that began before it was published.
    fn bypasses(&self, port: &PortMapping) -> bool {
        port.protocol == Protocol::Udp
            && self.original.protocol == Protocol::Udp.number()
            && self.original.destination_port == port.host_port
            && self.reply.source == self.original.destination
            && self.reply.destination == self.original.source
    }

    fn deletion(&self) -> Vec<u8> {
        let mut request = Attributes::new(FAMILY_IPV4);
        for (kind, value) in &self.raw {
            if *kind == TUPLE_ORIGINAL {
                request.nest(*kind, |tuple| tuple.0.extend_from_slice(value));
            } else {
                request.bytes(*kind, value);
            }
        }
        request.0
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let find = |bytes, wanted| {
            attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
        };
        let (addresses, transport) = (find(bytes, 1)?, find(bytes, 2)?);
        let address =
            |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(addresses, kind)?).ok()?));
        let port =
            find(transport, 3).and_then(|port| Some(u16::from_be_bytes(port.try_into().ok()?)));
        Some(Self {
            source: address(1)?,
            destination: address(2)?,
            protocol: *find(transport, 1)?.first()?,
            // ICMP has none.
            destination_port: port.unwrap_or(0),
        })
    }
}

/// Decodes an entry as the kernel sends it; for fuzzing.
pub(crate) fn decode(payload: &[u8]) {
    if let Some(connection) = payload.get(HEADER_LENGTH..).and_then(Connection::parse) {
        let _ = connection.deletion();
    }
}
