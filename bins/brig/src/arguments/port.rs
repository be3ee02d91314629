//! `-p [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]` with ranges, and `--expose`.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use brig_engine_api::models::{PortBinding, PortMap};

/// Most ports one flag may publish.
const MAX_RANGE: usize = 65_536;

/// Adds what one `-p` publishes to the map.
pub(crate) fn publish(text: &str, map: &mut PortMap) -> Result<()> {
    let invalid =
        || format!("invalid port {text:?}: expected [[ADDRESS:]HOSTPORT:]CONTAINERPORT[/tcp|udp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        bail!(invalid());
    }
    let (address, host, container) = split(ports).with_context(invalid)?;
    if !address.is_empty() {
        address.parse::<IpAddr>().with_context(invalid)?;
    }
    let container = range(container).with_context(invalid)?;
    let host = if host.is_empty() { None } else { Some(range(host).with_context(invalid)?) };
    for (index, port) in container.clone().enumerate() {
        let host_port = match &host {
            None => String::new(),
            Some(host) if host.len() == container.len() => {
                (usize::from(*host.start()) + index).to_string()
            }
            // Any one port out of a range, for a single container port.
            Some(host) if container.len() == 1 => format!("{}-{}", host.start(), host.end()),
            Some(_) => bail!("{}: the ranges differ in length", invalid()),
        };
        let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(host_port) };
        let bindings = map.entry(format!("{port}/{protocol}")).or_default();
        bindings.get_or_insert_default().push(binding);
    }
    Ok(())
}

/// The ports one `--expose` names, as `PORT/PROTOCOL`.
pub(crate) fn expose(text: &str) -> Result<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let range = range(ports).with_context(|| format!("invalid port {text:?}"))?;
    Ok(range.map(|port| format!("{port}/{protocol}")).collect())
}

/// Address, host ports and container ports; an IPv6 address stands in brackets.
fn split(text: &str) -> Result<(&str, &str, &str)> {
    let (address, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']').context("a bracket is not closed")?;
            (Some(address), rest.strip_prefix(':').context("a port must follow the address")?)
        }
        None => (None, text),
    };
    let mut parts = rest.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    match (address, parts.next()) {
        (Some(_), Some(_)) => bail!("too many colons"),
        (address, bare) => Ok((address.or(bare).unwrap_or_default(), host, container)),
    }
}

/// A container port's range, never empty.
#[derive(Clone)]
struct Range(std::ops::RangeInclusive<u16>);

impl Range {
    fn start(&self) -> &u16 {
        self.0.start()
    }

    fn end(&self) -> &u16 {
        self.0.end()
    }

    fn len(&self) -> usize {
        usize::from(*self.end()) - usize::from(*self.start()) + 1
    }
}

impl Iterator for Range {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.0.next()
    }
}

fn range(text: &str) -> Result<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |part: &str| part.parse::<u16>().with_context(|| format!("{part:?} is no port"));
    let range = Range(parse(first)?..=parse(last)?);
    if range.start() > range.end() || *range.start() == 0 || range.len() > MAX_RANGE {
        bail!("{text:?} is no range of ports");
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str) -> Result<Vec<(String, String, String)>> {
        let mut map = PortMap::new();
        publish(text, &mut map)?;
        let mut all: Vec<_> = map
            .into_iter()
            .flat_map(|(port, bindings)| {
                bindings.unwrap().into_iter().map(move |binding| {
                    (port.clone(), binding.host_ip.unwrap(), binding.host_port.unwrap())
                })
            })
            .collect();
        all.sort();
        Ok(all)
    }

    #[test]
    fn every_form_of_a_port_is_understood() {
        let one = |port: &str, address: &str, host: &str| {
            vec![(port.to_owned(), address.to_owned(), host.to_owned())]
        };
        assert_eq!(published("80").unwrap(), one("80/tcp", "", ""));
        assert_eq!(published("8080:80").unwrap(), one("80/tcp", "", "8080"));
        assert_eq!(published("8080:80/udp").unwrap(), one("80/udp", "", "8080"));
        assert_eq!(published("127.0.0.1:8080:80").unwrap(), one("80/tcp", "127.0.0.1", "8080"));
        assert_eq!(published("127.0.0.1::80").unwrap(), one("80/tcp", "127.0.0.1", ""));
        assert_eq!(published("[::1]:8080:80").unwrap(), one("80/tcp", "::1", "8080"));
        assert_eq!(published("8000-8010:80").unwrap(), one("80/tcp", "", "8000-8010"));
        assert_eq!(published("8000-8001:80-81").unwrap().len(), 2);
        assert_eq!(published("8000-8001:80-81").unwrap()[1].2, "8001");
    }

    #[test]
    fn malformed_ports_are_refused() {
        for bad in [
            "",
            "x",
            "0",
            "80/icmp",
            "1:2:3:4",
            "8000-8002:80-81",
            "81-80",
            "host:80:80",
            "70000",
            "[::1:80",
        ] {
            assert!(published(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exposed_ranges_are_listed() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }
}
