//! The few kernel settings that networks need, written below `/proc/sys/net` of the calling thread's namespace.

use std::io;

use crate::{Error, InterfaceName, Result};

/// Sets `net/<name>`. A setting that this kernel does not have is an error of kind `NotFound`.
fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match std::fs::read_to_string(&path) {
        Ok(present) if present.trim_end() == value => return Ok(()),
        Ok(_) => {}
        Err(source) => return Err(Error::io(format!("read {path}"), source)),
    }
    std::fs::write(&path, value)
        .map_err(|source: io::Error| Error::io(format!("write {value} to {path}"), source))
}

/// Lets this namespace route. Never unset again: others may have come to rely on it.
pub(crate) fn enable_forwarding() -> Result<()> {
    set("ipv4/ip_forward", "1")
}

pub(crate) fn forwarding_enabled() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .is_ok_and(|value| value.trim_end() == "1")
}

/// No addresses by router advertisement, no link-local address: the link does not speak IPv6 (CVE-2020-13401). A kernel
/// without IPv6 has nothing to disable.
pub(crate) fn disable_ipv6(link: &InterfaceName) -> Result<()> {
    let Some(path) = directory(link) else { return Ok(()) };
    match set(&format!("ipv6/conf/{path}/disable_ipv6"), "1") {
        Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets packets between this host's 127.0.0.0/8 and the bridge be routed; the firewall admits only our own.
pub(crate) fn route_loopback(bridge: &InterfaceName) -> Result<()> {
    let Some(path) = directory(bridge) else { return Ok(()) };
    set(&format!("ipv4/conf/{path}/route_localnet"), "1")
}

/// The directory of a link. A name with dots is the same directory; `all` and `default` are no links.
fn directory(link: &InterfaceName) -> Option<&str> {
    Some(link.as_str()).filter(|name| !matches!(*name, "all" | "default"))
}
