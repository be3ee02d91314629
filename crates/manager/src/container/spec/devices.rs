//! Device nodes and the rules about them.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use rustix::fs::{major, minor};

use super::failed;
use crate::error::{Error, Result};
use crate::models::HostConfig;

/// Directories and depth that a request for a directory of devices may make us walk.
const WALK_DEPTH_MAX: usize = 8;
const WALK_NODES_MAX: usize = 4096;

/// A node that the container gets, and what it may do with it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) device: LinuxDevice,
    pub(super) access: String,
}

/// The nodes that a request names; all of the host's for a privileged container.
pub(super) fn nodes(host: &HostConfig) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    if host.privileged == Some(true) {
        walk(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut nodes)?;
    }
    for mapping in host.devices.iter().flatten() {
        let source = mapping.path_on_host.clone().unwrap_or_default();
        let target = mapping
            .path_in_container
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| source.clone());
        let access = mapping
            .cgroup_permissions
            .clone()
            .filter(|access| !access.is_empty())
            .unwrap_or_else(|| "rwm".into());
        if access.len() > 3 || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(Error::invalid(format!("invalid device mode: {access}")));
        }
        if !source.starts_with('/')
            || !target.starts_with('/')
            || target.split('/').any(|part| part == "..")
        {
            return Err(Error::invalid(format!(
                "invalid device {source}:{target}: paths must be absolute"
            )));
        }
        let resolved = PathBuf::from(&source);
        let metadata = std::fs::metadata(&resolved).map_err(|source| {
            Error::io(
                format!("error gathering device information for {}", resolved.display()),
                source,
            )
        })?;
        if metadata.is_dir() {
            walk(&resolved, Path::new(&target), &access, 0, &mut nodes)?;
        } else {
            nodes.push(node(&resolved, PathBuf::from(target), &access)?.ok_or_else(|| {
                Error::invalid(format!(
                    "error gathering device information for {source}: not a device node"
                ))
            })?);
        }
    }
    Ok(nodes)
}

/// Rules for the cgroup: nothing, then Docker's harmless devices, then the request's.
pub(super) fn rules(host: &HostConfig, nodes: &[Node]) -> Result<Vec<LinuxDeviceCgroup>> {
    let rule = |allow: bool| LinuxDeviceCgroupBuilder::default().allow(allow);
    if host.privileged == Some(true) {
        return Ok(vec![rule(true).access("rwm").build().map_err(failed)?]);
    }
    let mut rules = vec![rule(false).access("rwm").build().map_err(failed)?];
    // null, zero, full, random, urandom, tty, console, ptmx, and the terminals of the container's own devpts.
    let harmless = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    for kind in [LinuxDeviceType::C, LinuxDeviceType::B] {
        // Making a node is harmless where opening it is not allowed.
        rules.push(rule(true).typ(kind).access("m").build().map_err(failed)?);
    }
    for (major, minor) in harmless {
        let mut builder = rule(true).typ(LinuxDeviceType::C).major(major).access("rwm");
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        rules.push(builder.build().map_err(failed)?);
    }
    for Node { device, access } in nodes {
        let builder = rule(true).typ(device.typ()).major(device.major()).minor(device.minor());
        rules.push(builder.access(access.clone()).build().map_err(failed)?);
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

/// `c 1:3 rwm`, with `*` for any number.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let wrong = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true);
    builder = match kind {
        "a" => builder.typ(LinuxDeviceType::A),
        "c" => builder.typ(LinuxDeviceType::C),
        "b" => builder.typ(LinuxDeviceType::B),
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    if major != "*" {
        builder = builder.major(i64::from(major.parse::<u32>().map_err(|_| wrong())?));
    }
    if minor != "*" {
        builder = builder.minor(i64::from(minor.parse::<u32>().map_err(|_| wrong())?));
    }
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(wrong());
    }
    builder.access(access).build().map_err(failed)
}

fn walk(
    source: &Path,
    target: &Path,
    access: &str,
    depth: usize,
    nodes: &mut Vec<Node>,
) -> Result<()> {
    // Docker leaves out what the container gets of its own.
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts"];
    if depth > WALK_DEPTH_MAX {
        return Ok(());
    }
    let entries = std::fs::read_dir(source)
        .map_err(|error| Error::io(format!("list devices in {}", source.display()), error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let (path, inside) = (entry.path(), target.join(&name));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !OWN.iter().any(|own| name == *own) {
            walk(&path, &inside, access, depth + 1, nodes)?;
        } else if (kind.is_char_device() || kind.is_block_device()) && name != "console" {
            nodes.extend(node(&path, inside, access)?);
        }
        if nodes.len() > WALK_NODES_MAX {
            return Err(Error::invalid(format!("more than {WALK_NODES_MAX} device nodes")));
        }
    }
    Ok(())
}

/// What the kernel knows of a device node.
pub(super) struct Device {
    kind: LinuxDeviceType,
    pub(super) major: i64,
    pub(super) minor: i64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A device node on the host, or `None` when the path is something else.
pub(super) fn find(path: &Path) -> Result<Option<Device>> {
    let stat = rustix::fs::stat(path).map_err(|source| {
        Error::io(
            format!("error gathering device information for {}", path.display()),
            source.into(),
        )
    })?;
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::CharacterDevice => LinuxDeviceType::C,
        rustix::fs::FileType::BlockDevice => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    Ok(Some(Device {
        kind,
        major: major(stat.st_rdev).into(),
        minor: minor(stat.st_rdev).into(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }))
}

fn node(source: &Path, target: PathBuf, access: &str) -> Result<Option<Node>> {
    let Some(found) = find(source)? else { return Ok(None) };
    let device = LinuxDeviceBuilder::default()
        .path(target)
        .typ(found.kind)
        .major(found.major)
        .minor(found.minor)
        .file_mode(found.mode)
        .uid(found.uid)
        .gid(found.gid)
        .build()
        .map_err(failed)?;
    Ok(Some(Node { device, access: access.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::DeviceMapping;

    fn request(source: &str, target: &str, access: &str) -> HostConfig {
        let mapping = DeviceMapping {
            path_on_host: Some(source.into()),
            path_in_container: Some(target.into()),
            cgroup_permissions: Some(access.into()),
        };
        HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() }
    }

    #[test]
    fn a_requested_device_gets_a_node_and_a_rule() {
        let host = request("/dev/null", "/dev/nothing", "r");
        let nodes = nodes(&host).expect("a device");
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].device.major(), nodes[0].device.minor()), (1, 3));
        let rules = rules(&host, &nodes).expect("rules");
        assert!(!rules[0].allow() && rules[0].access().as_deref() == Some("rwm"));
        assert_eq!(rules.last().and_then(|rule| rule.access().clone()).as_deref(), Some("r"));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (source, target, access) in [
            ("/etc/passwd", "/dev/x", "rwm"),
            ("/dev/absent", "/dev/x", "rwm"),
            ("dev/null", "/dev/x", "rwm"),
            ("/dev/null", "/dev/../x", "rwm"),
            ("/dev/null", "/dev/x", "rwx"),
        ] {
            assert!(nodes(&request(source, target, access)).is_err(), "{source}:{target}:{access}");
        }
    }

    #[test]
    fn device_rules_parse() {
        assert!(parse_rule("c 1:3 rwm").is_ok());
        assert!(parse_rule("a *:* rwm").is_ok());
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c -1:3 r", "c 1:3 rx", "c 1:3 r r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
