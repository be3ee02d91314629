//! Finding what outside of our table keeps containers from their networks.

use std::fmt;

use brig_linux::netlink::{Protocol, Socket};

use super::table_exists;
use crate::nft::{self, Attributes, Hook, MessageType, attributes};
use crate::{Result, firewall, sysctl};

/// Something that an administrator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which one.
    pub kind: ProblemKind,
    /// What it is and what to do, for people.
    pub text: String,
}

/// The kinds of [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Our table or its rules are not there: flushed, or no network was made yet.
    TableMissing,
    /// The host does not forward IPv4.
    ForwardingDisabled,
    /// Another table drops what it does not know.
    ForeignPolicy,
    /// iptables-legacy filters beside nf_tables, and its policy cannot be read here.
    LegacyTables,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

pub(super) fn diagnose(table: &str) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut socket = Socket::open(Protocol::Netfilter)?;
    if !is_intact(table)? {
        problems.push(Problem {
            kind: ProblemKind::TableMissing,
            text: format!("nft table inet {table} is missing or damaged, so containers are neither reachable nor isolated; synchronise the networks"),
        });
    }
    if !sysctl::forwarding_enabled() {
        problems.push(Problem {
            kind: ProblemKind::ForwardingDisabled,
            text: "net.ipv4.ip_forward is 0, so containers reach nothing beyond this host; set it to 1".into(),
        });
    }
    let everything = Attributes::new(0).0;
    socket.dump_raw("list nft chains", MessageType::GetChain.with_subsystem(), &everything, &mut |_, payload| {
        problems.extend(Chain::parse(payload).filter(|chain| chain.drops_forwarded() && chain.table != table).map(
            |chain| Problem {
                kind: ProblemKind::ForeignPolicy,
                text: format!(
                    "chain {} of nft table {} {} drops forwarded packets by default, which no other table can overrule; \
                     accept traffic from and to the containers' bridges there",
                    chain.name, chain.family, chain.table
                ),
            },
        ));
    })?;
    // Only root may read it, and only where the modules are loaded does it exist.
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|name| name == "filter") {
        problems.push(Problem {
            kind: ProblemKind::LegacyTables,
            text: "iptables-legacy has a filter table; check that its FORWARD chain lets the containers' bridges pass".into(),
        });
    }
    Ok(problems)
}

pub(super) fn is_intact(table: &str) -> Result<bool> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    if !table_exists(&mut socket, table)? {
        return Ok(false);
    }
    let mut rules = 0;
    let request = nft::get_table(table);
    socket.dump_raw(
        "list nft rules",
        MessageType::GetRule.with_subsystem(),
        &request,
        &mut |_, _| rules += 1,
    )?;
    let expected: usize = firewall::table(table).chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(rules == expected)
}

#[derive(Debug, Default)]
struct Chain {
    family: &'static str,
    table: String,
    name: String,
    hook: Option<u32>,
    policy: Option<u32>,
}

impl Chain {
    /// struct nfgenmsg and the attributes of `NFT_MSG_NEWCHAIN`.
    fn parse(payload: &[u8]) -> Option<Self> {
        let family = match payload.first()? {
            1 => "inet",
            2 => "ip",
            // Bridges, ARP, devices and IPv6 cannot drop what we forward.
            _ => return None,
        };
        let mut chain = Self { family, ..Self::default() };
        for (kind, value) in attributes(payload.get(4..)?) {
            match kind {
                1 => chain.table = text(value),
                3 => chain.name = text(value),
                4 => {
                    chain.hook = attributes(value)
                        .find(|(kind, _)| *kind == 1)
                        .and_then(|(_, value)| number(value));
                }
                5 => chain.policy = number(value),
                _ => {}
            }
        }
        Some(chain)
    }

    fn drops_forwarded(&self) -> bool {
        self.hook == Some(Hook::Forward as u32) && self.policy == Some(0)
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).escape_debug().to_string()
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}
