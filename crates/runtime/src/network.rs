//! `linux.netDevices`: devices of the host that become the container's.

use std::os::fd::BorrowedFd;

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Error, ErrorKind, Result};

/// `IFNAMSIZ` without the final zero.
const NAME_MAX: usize = 15;
/// Far beyond what a machine has.
const DEVICES_MAX: usize = 256;

/// A device to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkDevice {
    name: String,
    /// In the container.
    new_name: String,
}

/// Checks the devices of a configuration; they come out by name.
///
/// # Errors
/// `InvalidInput` for names that cannot be, that are wanted twice, or without a network namespace of the container.
pub(crate) fn prepare(linux: &Linux) -> Result<Vec<NetworkDevice>> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
    let mut devices: Vec<NetworkDevice> = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let new_name =
            device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name.clone());
        for name in [name, &new_name] {
            if !is_device_name(name) {
                return Err(invalid(format!(
                    "linux.netDevices: {name:?} is not the name of a network device"
                )));
            }
        }
        if devices.iter().any(|other| other.new_name == new_name) {
            return Err(invalid(format!("linux.netDevices: two devices become {new_name:?}")));
        }
        devices.push(NetworkDevice { name: name.clone(), new_name });
    }
    if devices.len() > DEVICES_MAX {
        return Err(invalid(format!("linux.netDevices has more than {DEVICES_MAX} entries")));
    }
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let own = namespaces.iter().any(|entry| entry.typ() == LinuxNamespaceType::Network);
    if !devices.is_empty() && !own {
        return Err(invalid("linux.netDevices needs a network namespace".to_owned()));
    }
    devices.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(devices)
}

/// As the kernel checks it (`dev_valid_name`); `%` would make it number the name, and `lo` is the container's own.
fn is_device_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !matches!(name, "." | ".." | "lo")
        && !name.bytes().any(|byte| b"/:%\0".contains(&byte) || byte.is_ascii_whitespace())
}

/// Moves the devices into the container's network namespace.
///
/// # Errors
/// What the kernel refused; the devices before that one are the container's, and come back or go with its namespace.
pub(crate) fn attach(devices: &[NetworkDevice], namespace: BorrowedFd<'_>) -> Result<()> {
    for device in devices {
        brig_linux::netlink::move_device(&device.name, namespace, &device.new_name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(devices: &str, namespace: &str) -> Result<Vec<NetworkDevice>> {
        let text = format!(r#"{{"netDevices":{devices},"namespaces":[{{"type":"{namespace}"}}]}}"#);
        prepare(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn devices_keep_or_change_their_name() {
        let devices = parse(r#"{"eth1":{"name":"in0"},"eth0":{}}"#, "network").unwrap();
        let names: Vec<_> =
            devices.iter().map(|device| (device.name.as_str(), device.new_name.as_str())).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "in0")]);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for devices in [
            r#"{"":{}}"#,
            r#"{"lo":{}}"#,
            r#"{"a":{"name":"b/c"}}"#,
            r#"{"a":{"name":"veth%d"}}"#,
            r#"{"a":{"name":"0123456789abcdef"}}"#,
            r#"{"a":{"name":"x"},"b":{"name":"x"}}"#,
        ] {
            let error = parse(devices, "network").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{devices}");
        }
        assert!(parse(r#"{"a":{}}"#, "ipc").unwrap_err().to_string().contains("namespace"));
    }
}
