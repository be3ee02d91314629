//! Which capabilities a container holds.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::models::HostConfig;

/// Every capability of Linux 6.18, by number.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What Docker gives.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A set of capability names, all known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capabilities(BTreeSet<&'static str>);

impl Capabilities {
    /// Docker's rules: privileged holds all; `ALL` in one list is the base that the other list changes.
    pub(crate) fn of(host: &HostConfig) -> Result<Self> {
        let (add, add_all) = parse(host.cap_add.as_deref().unwrap_or_default())?;
        let (drop, drop_all) = parse(host.cap_drop.as_deref().unwrap_or_default())?;
        if host.privileged == Some(true) {
            return Ok(Self::all());
        }
        let base: BTreeSet<&'static str> = match (add_all, drop_all) {
            (true, _) => held_by_us(),
            (false, true) => BTreeSet::new(),
            (false, false) => DEFAULT.into_iter().collect(),
        };
        Ok(Self(base.difference(&drop).copied().chain(add).collect()))
    }

    /// All that this process could itself hand out.
    pub(crate) fn all() -> Self {
        Self(held_by_us())
    }

    /// The names, `CAP_` included.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }

    pub(crate) fn to_oci(&self) -> Result<oci_spec::runtime::Capabilities> {
        self.names()
            .map(|name| {
                serde_json::from_value(name.into()).map_err(|source| {
                    Error::invalid(format!("capability {name}")).with_source(source)
                })
            })
            .collect()
    }
}

/// All known capabilities that are in our own bounding set: asking for more would only fail later.
fn held_by_us() -> BTreeSet<&'static str> {
    let held = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let held = held.unwrap_or(u64::MAX);
    ALL.into_iter()
        .enumerate()
        .filter(|(number, _)| held >> number & 1 == 1)
        .map(|(_, name)| name)
        .collect()
}

fn parse(names: &[String]) -> Result<(BTreeSet<&'static str>, bool)> {
    let mut found = BTreeSet::new();
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            all = true;
            continue;
        }
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let known = ALL.into_iter().find(|known| *known == full);
        found.insert(known.ok_or_else(|| {
            Error::invalid(format!("invalid capability: unknown capability: \"{name}\""))
        })?);
    }
    Ok((found, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Result<BTreeSet<&'static str>> {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let host = HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() };
        Capabilities::of(&host).map(|capabilities| capabilities.0)
    }

    #[test]
    fn the_default_is_dockers_fourteen() {
        assert_eq!(of(&[], &[]).expect("good").len(), 14);
    }

    #[test]
    fn lists_change_their_base() {
        let net_admin = of(&["NET_ADMIN"], &["cap_mknod"]).expect("good");
        assert!(net_admin.contains("CAP_NET_ADMIN") && !net_admin.contains("CAP_MKNOD"));
        assert_eq!(
            of(&["CHOWN"], &["ALL"]).expect("good").into_iter().collect::<Vec<_>>(),
            ["CAP_CHOWN"]
        );
        let all_but = of(&["ALL"], &["CHOWN"]).expect("good");
        assert!(!all_but.contains("CAP_CHOWN") && all_but.contains("CAP_SYS_CHROOT"));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(of(&["NET_ADMINS"], &[]).expect_err("unknown").report().contains("NET_ADMINS"));
        assert!(of(&[], &["X"]).is_err());
    }
}
