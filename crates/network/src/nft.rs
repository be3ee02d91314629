//! nf_tables as data, and its encoding for netlink (linux/netfilter/nf_tables.h; everything numeric is big-endian there
//! unless said otherwise).
//!
//! netlink-packet-netfilter types fewer than half of the expressions used here and aligns nothing, so this module
//! encodes what it needs itself: a few attributes deep, without any decoding.

mod attributes;

use brig_linux::netlink::Batch;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

pub(crate) use self::attributes::{Attributes, Register, attributes};

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u8 = 10;
/// `NFPROTO_INET`: one table for both IP families.
pub(crate) const FAMILY_INET: u8 = 1;
/// `NFPROTO_IPV4`, in addresses and NAT.
pub(crate) const FAMILY_IPV4: u8 = 2;

/// Nested attributes are limited to 64 KiB; an element takes at most about 150 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// Message types (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageType {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

impl MessageType {
    /// The type as it stands in a netlink header outside of batches.
    pub(crate) fn with_subsystem(self) -> u16 {
        u16::from(SUBSYSTEM) << 8 | u16::from(self as u8)
    }
}

/// A named table with all it holds but the elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// A set or map. Field order of keys and values is that of registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Type],
    /// Keys may be ranges in every field.
    pub(crate) intervals: bool,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Verdict,
    Data(&'static [Type]),
}

/// nft's own type numbers (its `datatype.h`), by which it prints sets. The kernel ignores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Ipv4Address = 7,
    InetProtocol = 12,
    InetService = 13,
    InterfaceName = 41,
}

impl Type {
    fn length(self) -> usize {
        match self {
            Self::Ipv4Address => 4,
            Self::InetProtocol => 1,
            Self::InetService => 2,
            Self::InterfaceName => 16,
        }
    }
}

/// A chain; with a hook it is a base chain whose policy is accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: &'static str,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

/// `enum nf_inet_hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Expressions from left to right; the first that does not match ends the rule.
pub(crate) type Rule = Vec<Expression>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Load from the packet's environment.
    Meta {
        key: MetaKey,
        to: Register,
    },
    /// Load bytes of the packet.
    Payload {
        base: PayloadBase,
        offset: u8,
        length: u8,
        to: Register,
    },
    /// Load state of the connection (host byte order).
    Conntrack {
        key: ConntrackKey,
        to: Register,
    },
    /// Load the type of an address, by route lookup (host byte order).
    AddressType {
        of: Endpoint,
        to: Register,
    },
    /// Keep some bits.
    Mask {
        register: Register,
        mask: [u8; 4],
    },
    /// Go on if the register has these bytes.
    Equal {
        register: Register,
        value: Vec<u8>,
    },
    /// Go on if the register has other bytes.
    NotEqual {
        register: Register,
        value: Vec<u8>,
    },
    /// Go on if the set has the key; a map's data goes `to` a register.
    Lookup {
        set: &'static str,
        from: Register,
        to: Option<Destination>,
    },
    /// Put bytes into a register.
    Load {
        value: Vec<u8>,
        to: Register,
    },
    /// Rewrite the destination to the IPv4 address and port in registers.
    DestinationNat {
        address: Register,
        port: Option<Register>,
    },
    /// Rewrite the source to the address of the outgoing link.
    Masquerade,
    Verdict(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    Register(Register),
    Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Source = 1,
    Destination = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaKey {
    InputName = 6,
    OutputName = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadBase {
    Network = 1,
    Transport = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConntrackKey {
    State = 0,
    Status = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Jump(&'static str),
    Goto(&'static str),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    /// The last key of the range, in sets with intervals.
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Data,
    /// For error messages.
    pub(crate) description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Data {
    None,
    Value(Vec<u8>),
    Accept,
    Goto(&'static str),
}

/// A name as nf_tables compares it: padded to IFNAMSIZ.
pub(crate) fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The key or value of several fields: each begins at a multiple of four bytes.
pub(crate) fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Adds the messages that make the table anew, sets and chains before the rules that use them.
pub(crate) fn create_table(batch: &mut Batch, table: &Table) {
    new_table(batch, &table.name);
    for (id, set) in (1..).zip(&table.sets) {
        create_set(batch, &table.name, set, id);
    }
    for chain in &table.chains {
        create_chain(batch, &table.name, chain);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            append_rule(batch, &table.name, chain.name, rule);
        }
    }
}

/// Adds messages after which the table does not exist, whether it did before or not.
pub(crate) fn delete_table(batch: &mut Batch, name: &str) {
    new_table(batch, name);
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, name);
    push(batch, MessageType::DeleteTable, 0, attributes, format!("delete nft table {name}"));
}

/// The body of a request for one table, or for all that one table holds.
pub(crate) fn get_table(name: &str) -> Vec<u8> {
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, name);
    attributes.0
}

pub(crate) fn add_elements(batch: &mut Batch, table: &str, elements: &[Element]) {
    change_elements(batch, MessageType::NewElement, NLM_F_CREATE, table, elements);
}

pub(crate) fn delete_elements(batch: &mut Batch, table: &str, elements: &[Element]) {
    change_elements(batch, MessageType::DeleteElement, 0, table, elements);
}

/// The body of a request for one element.
pub(crate) fn get_element(table: &str, element: &Element) -> Vec<u8> {
    elements_of(MessageType::GetElement, table, std::slice::from_ref(element)).0
}

/// The data of the one element in an answer.
pub(crate) fn element_data(payload: &[u8]) -> Option<&[u8]> {
    let inner =
        |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // struct nfgenmsg; NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA, NFTA_DATA_VALUE
    [3, 1, 2, 1].into_iter().try_fold(payload.get(4..)?, inner)
}

fn push(
    batch: &mut Batch,
    kind: MessageType,
    flags: u16,
    attributes: Attributes,
    description: String,
) {
    batch.push(kind as u8, flags, attributes.0, description);
}

fn new_table(batch: &mut Batch, name: &str) {
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, name);
    push(
        batch,
        MessageType::NewTable,
        NLM_F_CREATE,
        attributes,
        format!("create nft table {name}"),
    );
}

fn create_set(batch: &mut Batch, table: &str, set: &Set, id: u32) {
    const INTERVAL: u32 = 0x4;
    const MAP: u32 = 0x8;
    const CONCATENATION: u32 = 0x80;
    let concatenated = set.key.len() > 1;
    let mut flags = 0;
    if set.intervals {
        flags |= INTERVAL;
    }
    if concatenated && set.intervals {
        flags |= CONCATENATION;
    }
    if set.value != Value::None {
        flags |= MAP;
    }
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, table);
    attributes.text(2, set.name);
    attributes.number(3, flags);
    attributes.number(4, type_number(set.key));
    attributes.number(5, packed_length(set.key));
    match set.value {
        Value::None => {}
        Value::Verdict => {
            attributes.number(6, 0xffff_ff00);
        }
        Value::Data(types) => {
            attributes.number(6, type_number(types));
            attributes.number(7, packed_length(types));
        }
    }
    if concatenated && set.intervals {
        attributes.nest(9, |description| {
            description.nest(2, |fields| {
                for field in set.key {
                    fields.nest(1, |field_length| field_length.number(1, count(field.length())));
                }
            });
        });
    }
    attributes.number(10, id);
    if set.key == [Type::InterfaceName] {
        // How nft is told the byte order of the key (libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER: type, length, host order);
        // it prints empty names otherwise.
        let [a, b, c, d] = 1_u32.to_ne_bytes();
        attributes.bytes(13, &[0, 4, a, b, c, d]);
    }
    push(
        batch,
        MessageType::NewSet,
        NLM_F_CREATE | NLM_F_EXCL,
        attributes,
        format!("create nft set {table} {}", set.name),
    );
}

fn create_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, table);
    attributes.text(3, chain.name);
    if let Some(base) = chain.base {
        attributes.nest(4, |hook| {
            hook.number(1, base.hook as u32);
            hook.bytes(2, &base.priority.to_be_bytes());
        });
        attributes.number(5, 1);
        attributes.text(7, base.kind);
    }
    let description = format!("create nft chain {table} {}", chain.name);
    push(batch, MessageType::NewChain, NLM_F_CREATE | NLM_F_EXCL, attributes, description);
}

fn append_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, table);
    attributes.text(2, chain);
    attributes.nest(4, |list| {
        for expression in rule {
            list.nest(1, |entry| encode_expression(entry, expression));
        }
    });
    let description = format!("add an nft rule to {table} {chain}");
    push(batch, MessageType::NewRule, NLM_F_CREATE | NLM_F_APPEND, attributes, description);
}

fn change_elements(
    batch: &mut Batch,
    kind: MessageType,
    flags: u16,
    table: &str,
    elements: &[Element],
) {
    for same_set in elements.chunk_by(|a, b| a.set == b.set) {
        for chunk in same_set.chunks(ELEMENTS_PER_MESSAGE) {
            let Some(first) = chunk.first() else { continue };
            let attributes = elements_of(kind, table, chunk);
            let verb = if kind == MessageType::NewElement { "add" } else { "remove" };
            let others = if chunk.len() > 1 { " and others" } else { "" };
            let description =
                format!("{verb} {}{others} in nft set {table} {}", first.description, first.set);
            push(batch, kind, flags, attributes, description);
        }
    }
}

/// The elements of one set as an attribute list.
fn elements_of(kind: MessageType, table: &str, elements: &[Element]) -> Attributes {
    let mut attributes = Attributes::new(FAMILY_INET);
    attributes.text(1, table);
    attributes.text(2, elements.first().map_or("", |element| element.set));
    attributes.nest(3, |list| {
        for element in elements {
            list.nest(1, |entry| encode_element(entry, element, kind));
        }
    });
    attributes
}

fn encode_element(entry: &mut Attributes, element: &Element, kind: MessageType) {
    entry.nest(1, |key| key.bytes(1, &element.key));
    if let Some(end) = &element.key_end {
        entry.nest(10, |key| key.bytes(1, end));
    }
    if kind == MessageType::NewElement {
        match &element.data {
            Data::None => {}
            Data::Value(value) => entry.nest(2, |data| data.bytes(1, value)),
            Data::Accept => entry.nest(2, |data| encode_verdict(data, Verdict::Accept)),
            Data::Goto(chain) => entry.nest(2, |data| encode_verdict(data, Verdict::Goto(chain))),
        }
    }
}

fn encode_expression(entry: &mut Attributes, expression: &Expression) {
    let mut named = |name: &str, fill: &dyn Fn(&mut Attributes)| {
        entry.text(1, name);
        entry.nest(2, |data| fill(data));
    };
    match expression {
        Expression::Meta { key, to } => named("meta", &|data| {
            data.register(1, *to);
            data.number(2, *key as u32);
        }),
        Expression::Payload { base, offset, length, to } => named("payload", &|data| {
            data.register(1, *to);
            data.number(2, *base as u32);
            data.number(3, u32::from(*offset));
            data.number(4, u32::from(*length));
        }),
        Expression::Conntrack { key, to } => named("ct", &|data| {
            data.register(1, *to);
            data.number(2, *key as u32);
        }),
        Expression::AddressType { of, to } => named("fib", &|data| {
            data.register(1, *to);
            // NFT_FIB_RESULT_ADDRTYPE
            data.number(2, 3);
            data.number(3, *of as u32);
        }),
        Expression::Mask { register, mask } => named("bitwise", &|data| {
            data.register(1, *register);
            data.register(2, *register);
            data.number(3, 4);
            data.nest(4, |value| value.bytes(1, mask));
            data.nest(5, |value| value.bytes(1, &[0; 4]));
        }),
        Expression::Equal { register, value } => named("cmp", &|data| {
            encode_compare(data, *register, 0, value);
        }),
        Expression::NotEqual { register, value } => named("cmp", &|data| {
            encode_compare(data, *register, 1, value);
        }),
        Expression::Lookup { set, from, to } => named("lookup", &|data| {
            data.text(1, set);
            data.register(2, *from);
            match to {
                None => {}
                Some(Destination::Register(register)) => data.register(3, *register),
                Some(Destination::Verdict) => data.number(3, 0),
            }
        }),
        Expression::Load { value, to } => named("immediate", &|data| {
            data.register(1, *to);
            data.nest(2, |load| load.bytes(1, value));
        }),
        Expression::DestinationNat { address, port } => named("nat", &|data| {
            data.number(1, 1);
            data.number(2, u32::from(FAMILY_IPV4));
            data.register(3, *address);
            if let Some(port) = port {
                data.register(5, *port);
            }
        }),
        Expression::Masquerade => named("masq", &|_| {}),
        Expression::Verdict(verdict) => named("immediate", &|data| {
            data.number(1, 0);
            data.nest(2, |load| encode_verdict(load, *verdict));
        }),
    }
}

fn encode_compare(data: &mut Attributes, register: Register, operation: u32, value: &[u8]) {
    data.register(1, register);
    data.number(2, operation);
    data.nest(3, |compared| compared.bytes(1, value));
}

fn encode_verdict(data: &mut Attributes, verdict: Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    data.nest(2, |nested| {
        nested.bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            nested.text(2, chain);
        }
    });
}

/// nft's number of a concatenation: six bits for each type.
fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, kind| number << 6 | *kind as u32)
}

/// The length of the fields together: each padded when there are several.
fn packed_length(types: &[Type]) -> u32 {
    let length = match types {
        [single] => single.length(),
        several => several.iter().map(|kind| kind.length().next_multiple_of(4)).sum(),
    };
    count(length)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_elements_are_split_below_the_attribute_limit() {
        let element = |index: u32| Element {
            set: "ports",
            key: concatenate(&[&index.to_be_bytes(), &[6], &[0, 80]]),
            key_end: Some(concatenate(&[&index.to_be_bytes(), &[6], &[0, 90]])),
            data: Data::Value(vec![0; 8]),
            description: index.to_string(),
        };
        let elements: Vec<_> = (0..1000).map(element).collect();
        let mut batch = Batch::new(SUBSYSTEM);
        add_elements(&mut batch, "t", &elements);
        assert_eq!(batch.len(), 4);
    }

    #[test]
    fn concatenations_are_padded_and_numbered_as_nft_does() {
        assert_eq!(
            concatenate(&[&[1], &[2, 3], &[4, 5, 6, 7]]),
            [1, 0, 0, 0, 2, 3, 0, 0, 4, 5, 6, 7]
        );
        assert_eq!(
            type_number(&[Type::Ipv4Address, Type::InetProtocol, Type::InetService]),
            7 << 12 | 12 << 6 | 13
        );
        assert_eq!(packed_length(&[Type::InterfaceName]), 16);
        assert_eq!(packed_length(&[Type::Ipv4Address, Type::InetService]), 8);
    }
}
