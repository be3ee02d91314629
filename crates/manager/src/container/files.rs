//! The files of ours that a container sees over its image's: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;

/// The largest file of the host that is copied.
const HOST_FILE_BYTES_MAX: u64 = 1 << 20;

/// What goes into `/etc/hosts`.
#[derive(Debug, Clone, Default)]
pub(crate) enum Hosts {
    /// The host's own file (the container shares the host's network).
    Host,
    /// Addresses and names, and those of `--add-host`.
    #[default]
    Empty,
    Lines(Vec<(IpAddr, Vec<String>)>),
}

/// What goes into `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// Writes the three files into the container's directory; returns where each is to appear.
pub(crate) fn write(
    directory: &Path,
    record: &ContainerRecord,
    hosts: &Hosts,
    resolv_conf: &ResolvConf,
) -> Result<Vec<(&'static str, PathBuf)>> {
    let hostname = record.config.hostname.as_deref().unwrap_or_default();
    let texts = [
        ("/etc/resolv.conf", "resolv.conf", resolv_conf.to_text()),
        ("/etc/hostname", "hostname", format!("{hostname}\n")),
        ("/etc/hosts", "hosts", hosts_text(record, hosts)?),
    ];
    let mut files = Vec::new();
    for (destination, name, text) in texts {
        let path = directory.join(name);
        // In place: a running container has this very file mounted.
        std::fs::write(&path, text)
            .map_err(|source| Error::io(format!("write {}", path.display()), source))?;
        set_mode(&path)?;
        files.push((destination, path));
    }
    Ok(files)
}

/// Every user of the container reads these, whatever our umask.
fn set_mode(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|source| Error::io(format!("set the mode of {}", path.display()), source))
}

fn hosts_text(record: &ContainerRecord, hosts: &Hosts) -> Result<String> {
    let mut text = match hosts {
        Hosts::Host => read_host_file("/etc/hosts"),
        Hosts::Empty | Hosts::Lines(_) => concat!(
            "127.0.0.1\tlocalhost\n",
            "::1\tlocalhost ip6-localhost ip6-loopback\n",
            "fe00::\tip6-localnet\n",
            "ff00::\tip6-mcastprefix\n",
            "ff02::1\tip6-allnodes\n",
            "ff02::2\tip6-allrouters\n",
        )
        .to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let gateway = match hosts {
        Hosts::Lines(lines) => {
            for (address, names) in lines {
                let _ = writeln!(text, "{address}\t{}", names.join(" "));
            }
            lines.first().map(|(address, _)| *address)
        }
        _ => None,
    };
    for entry in record.host_config.extra_hosts.iter().flatten() {
        let (name, address) = parse_extra_host(entry)?;
        match address {
            Some(address) => drop(writeln!(text, "{address}\t{name}")),
            // host-gateway is resolved by the network part before; without a network it is loopback.
            None => drop(writeln!(
                text,
                "{}\t{name}",
                gateway_of(record).or(gateway).unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
            )),
        }
    }
    Ok(text)
}

fn gateway_of(record: &ContainerRecord) -> Option<IpAddr> {
    record.networks.values().find_map(|attachment| attachment.endpoint.as_ref()?.endpoint.gateway)
}

/// `name:address` or `name=address`; the address may be `host-gateway`.
pub(crate) fn parse_extra_host(entry: &str) -> Result<(&str, Option<IpAddr>)> {
    let wrong = || Error::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once(['=', ':']).ok_or_else(wrong)?;
    let good = !name.is_empty()
        && !name.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control());
    if !good {
        return Err(wrong());
    }
    if address == "host-gateway" {
        return Ok((name, None));
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let address = bare
        .parse()
        .map_err(|_| Error::invalid(format!("invalid IP address in add-host: \"{address}\"")))?;
    Ok((name, Some(address)))
}

fn read_host_file(path: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    // A host without the file, or with one that is no text, is like one with an empty file.
    let _ = std::fs::File::open(path)
        .and_then(|file| file.take(HOST_FILE_BYTES_MAX).read_to_string(&mut text));
    text
}

impl ResolvConf {
    /// The host's own resolver configuration.
    pub(crate) fn of_host() -> Self {
        Self::parse(&read_host_file("/etc/resolv.conf"))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    parsed
                        .servers
                        .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => parsed.search = words.map(str::to_owned).collect(),
                Some("options") => parsed.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        parsed
    }

    fn to_text(&self) -> String {
        let mut text =
            String::from("# Generated by brig. Edits are lost when the container restarts.\n");
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::HostConfig;

    #[test]
    fn hosts_hold_the_containers_addresses_and_the_added_ones() {
        let extra = vec!["db:10.0.0.9".to_owned(), "six=[::5]".to_owned()];
        let record = ContainerRecord {
            host_config: HostConfig { extra_hosts: Some(extra), ..HostConfig::default() },
            ..ContainerRecord::default()
        };
        let lines = Hosts::Lines(vec![([172, 17, 0, 2].into(), vec!["web".into(), "abc".into()])]);
        let text = hosts_text(&record, &lines).expect("good");
        for line in
            ["127.0.0.1\tlocalhost\n", "172.17.0.2\tweb abc\n", "10.0.0.9\tdb\n", "::5\tsix\n"]
        {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn added_hosts_cannot_smuggle_lines() {
        for bad in ["", "db", ":1.2.3.4", "db:nonsense", "a b:1.2.3.4", "a\n1.1.1.1 x:1.2.3.4"] {
            assert!(parse_extra_host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn resolver_files_round_trip() {
        let text = "# x\nnameserver 1.1.1.1\nnameserver bogus\nnameserver ::1\nsearch a b\noptions ndots:1\noptions rotate\n";
        let parsed = ResolvConf::parse(text);
        assert_eq!(parsed.servers.len(), 2);
        assert_eq!(ResolvConf::parse(&parsed.to_text()), parsed);
    }
}
