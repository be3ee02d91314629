//! Names of containers: a pure answer to a query, and the sockets inside a container's namespace to hear it on.
//!
//! ```text
//! container ──▶ 127.0.0.11:53 ──(nft table brig_dns of its namespace)──▶ 127.0.0.11:RANDOM = Sockets
//!                                                                           │ answer(query, zone)
//!                                            Reply ◀── known names ─────────┤
//!                                            Forward ── everything else ────┘ to the host's servers, by the caller
//! ```
//!
//! The port is redirected rather than bound, so that a DNS server in the container may have port 53 for itself. Nothing
//! here waits: the caller owns the loop, forwards what is to be forwarded verbatim, and bounds how many clients it
//! serves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use brig_linux::netlink::{Batch, Protocol as NetlinkProtocol, Socket};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::nft::{self, Base, Chain, Expression, Hook, MetaKey, PayloadBase, Rule, Table};
use crate::{Error, Protocol, Result, netns};

/// Where containers find their resolver, as in Docker.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The most names of one zone.
pub const ZONE_NAMES_MAX: usize = 65_536;
/// The most addresses of one name.
pub const NAME_ADDRESSES_MAX: usize = 256;
/// RFC 1035, 2.3.4.
const NAME_LENGTH_MAX: usize = 253;
/// Seconds that clients may keep an answer: containers come and go.
const TIME_TO_LIVE: u32 = 10;
/// What fits into a packet everywhere (dnsflagday.net/2020), and what we ask clients to keep to.
const UDP_PAYLOAD: u16 = 1232;
const UDP_PAYLOAD_MIN: u16 = 512;
const HEADER_LENGTH: usize = 12;
const TABLE: &str = "brig_dns";

/// What one container can resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, String>,
    external: External,
}

/// What becomes of names that are nobody's in the zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum External {
    /// They go to the host's servers.
    #[default]
    Forwarded,
    /// They do not exist: the container has no network that leads out (CVE-2024-29018).
    Unknown,
}

impl Zone {
    /// An empty zone.
    #[must_use]
    pub fn new(external: External) -> Self {
        Self { external, ..Self::default() }
    }

    /// Gives a name (container name, alias, short id, host name) an address; several addresses are answered in turn.
    /// The first name of an address is the one that reverse lookups find. Case and a final dot do not matter.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot stand in a query; `Exhausted` past [`ZONE_NAMES_MAX`] or [`NAME_ADDRESSES_MAX`].
    pub fn insert(&mut self, name: &str, address: IpAddr) -> Result<()> {
        let key = canonical(name);
        let labels_fit = key.split('.').all(|label| !label.is_empty() && label.len() <= 63);
        if !labels_fit
            || key.len() > NAME_LENGTH_MAX
            || !key.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::invalid(format!(
                "register DNS name \"{}\": it is no host name",
                name.escape_debug()
            )));
        }
        let full = |what: &str| {
            Error::new(
                crate::ErrorKind::Exhausted,
                format!("register DNS name \"{}\": {what}", name.escape_debug()),
            )
        };
        if self.names.len() >= ZONE_NAMES_MAX && !self.names.contains_key(&key) {
            return Err(full("the zone is full"));
        }
        let addresses = self.names.entry(key.clone()).or_default();
        if !addresses.contains(&address) {
            if addresses.len() >= NAME_ADDRESSES_MAX {
                return Err(full("it has too many addresses"));
            }
            addresses.push(address);
        }
        self.reverse.entry(address).or_insert(key);
        Ok(())
    }

    /// Whether the zone has the name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(&canonical(name))
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this back.
    Reply(Vec<u8>),
    /// Ask a server of the host and send its answer back unchanged.
    Forward,
    /// Say nothing: it is no query, and answering could make two servers answer each other for ever.
    Drop,
}

/// Decides about one query; over TCP without the length before it.
#[must_use]
pub fn answer(query: &[u8], zone: &Zone, transport: Protocol) -> Answer {
    // The id, and the bit that tells responses from queries.
    let (Some(id), Some(flags)) = (query.first_chunk::<2>(), query.get(2)) else {
        return Answer::Drop;
    };
    if query.len() < HEADER_LENGTH || flags & 0x80 != 0 {
        return Answer::Drop;
    }
    let Ok(message) = Message::from_vec(query) else {
        let malformed =
            Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, ResponseCode::FormErr);
        return encode(malformed, usize::from(UDP_PAYLOAD_MIN));
    };
    let limit = match transport {
        Protocol::Tcp => usize::from(u16::MAX),
        Protocol::Udp => usize::from(message.max_payload().clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD)),
    };
    match decide(&message, zone) {
        None => Answer::Forward,
        Some((code, answers)) => encode(response(&message, code, answers), limit),
    }
}

/// A response code and records, or `None` to forward.
fn decide(message: &Message, zone: &Zone) -> Option<(ResponseCode, Vec<Record>)> {
    if message.metadata.message_type != MessageType::Query
        || message.metadata.op_code != OpCode::Query
    {
        return Some((ResponseCode::NotImp, Vec::new()));
    }
    let [query] = &message.queries[..] else { return Some((ResponseCode::FormErr, Vec::new())) };
    let found = match query.query_class() {
        DNSClass::IN | DNSClass::ANY => lookup(query, zone, message.metadata.id),
        _ => None,
    };
    match (found, zone.external) {
        (Some(records), _) => Some((ResponseCode::NoError, records)),
        (None, External::Forwarded) => None,
        (None, External::Unknown) => Some((ResponseCode::NXDomain, Vec::new())),
    }
}

/// The records of a known name, perhaps none of the asked type; `None` for an unknown one.
fn lookup(query: &Query, zone: &Zone, id: u16) -> Option<Vec<Record>> {
    let name = query.name();
    let kind = query.query_type();
    if let Some(addresses) = zone.names.get(&canonical(&name.to_ascii())) {
        let wanted = |address: &&IpAddr| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => kind == RecordType::ANY,
        };
        let mut addresses: Vec<IpAddr> = addresses.iter().filter(wanted).copied().collect();
        if !addresses.is_empty() {
            // Ids are random, so clients spread over the addresses.
            let turn = usize::from(id) % addresses.len();
            addresses.rotate_left(turn);
        }
        return Some(addresses.into_iter().map(|address| record(name, address)).collect());
    }
    let arpa =
        name.parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len())?;
    let target = Name::from_ascii(format!("{}.", zone.reverse.get(&arpa.addr())?)).ok()?;
    let wanted = matches!(kind, RecordType::PTR | RecordType::ANY);
    Some(
        wanted
            .then(|| Record::from_rdata(name.clone(), TIME_TO_LIVE, RData::PTR(PTR(target))))
            .into_iter()
            .collect(),
    )
}

fn record(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name.clone(), TIME_TO_LIVE, data)
}

fn response(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries.clone_from(&query.queries);
    response.answers = answers;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        response.edns = Some(edns);
    }
    response
}

/// The response in at most `limit` bytes: with fewer records and marked as truncated where it must be.
fn encode(mut response: Message, limit: usize) -> Answer {
    loop {
        match response.to_vec() {
            Ok(bytes) if bytes.len() <= limit => return Answer::Reply(bytes),
            Ok(_) if !response.answers.is_empty() => {
                response.answers.truncate(response.answers.len() / 2);
                response.metadata.truncation = true;
            }
            // A question that alone exceeds the limit cannot be asked by an honest client.
            _ => return Answer::Drop,
        }
    }
}

/// The sockets of one container's resolver. Non-blocking, so that an event loop can take them.
#[derive(Debug)]
pub struct Sockets {
    /// Receives queries sent to [`ADDRESS`] port 53 by UDP.
    pub udp: UdpSocket,
    /// The same by TCP.
    pub tcp: TcpListener,
}

/// Opens sockets on [`ADDRESS`] inside the namespace and redirects port 53 to them; a former redirect is replaced.
///
/// # Errors
/// `NotFound` when there is no namespace at the path; else what the kernel reports.
pub fn bind(netns: &Path) -> Result<Sockets> {
    netns::run_in(netns, || {
        let attempt = |source| {
            Error::io(format!("open a resolver at {ADDRESS} in {}", netns.display()), source)
        };
        let any = SocketAddr::from((ADDRESS, 0));
        let udp = UdpSocket::bind(any).map_err(attempt)?;
        let tcp = TcpListener::bind(any).map_err(attempt)?;
        udp.set_nonblocking(true).map_err(attempt)?;
        tcp.set_nonblocking(true).map_err(attempt)?;
        let udp_port = udp.local_addr().map_err(attempt)?.port();
        let tcp_port = tcp.local_addr().map_err(attempt)?.port();
        let rules = vec![redirect(Protocol::Udp, udp_port), redirect(Protocol::Tcp, tcp_port)];
        let base = Some(Base { kind: "nat", hook: Hook::Output, priority: -100 });
        let table = Table {
            name: TABLE.into(),
            sets: Vec::new(),
            chains: vec![Chain { name: "output", base, rules }],
        };
        let mut batch = Batch::new(nft::SUBSYSTEM);
        nft::delete_table(&mut batch, TABLE);
        nft::create_table(&mut batch, &table);
        Socket::open(NetlinkProtocol::Netfilter)?.transact(&batch)?;
        Ok(Sockets { udp, tcp })
    })
}

fn redirect(protocol: Protocol, port: u16) -> Rule {
    vec![
        Expression::Meta { key: MetaKey::NetworkProtocol, to: 0 },
        Expression::Equal { register: 0, value: vec![nft::FAMILY_IPV4] },
        Expression::Payload { base: PayloadBase::Network, offset: 16, length: 4, to: 0 },
        Expression::Equal { register: 0, value: ADDRESS.octets().to_vec() },
        Expression::Meta { key: MetaKey::TransportProtocol, to: 0 },
        Expression::Equal { register: 0, value: vec![protocol.number()] },
        Expression::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: 0 },
        Expression::Equal { register: 0, value: 53_u16.to_be_bytes().to_vec() },
        Expression::Load { value: ADDRESS.octets().to_vec(), to: 0 },
        Expression::Load { value: port.to_be_bytes().to_vec(), to: 1 },
        Expression::DestinationNat { address: 0, port: Some(1) },
    ]
}

#[cfg(test)]
mod tests;
