//! Device nodes of the container.

use std::ffi::CString;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::mounts::{has_parent, target};
use crate::error::{Error, ErrorKind, Result};

/// One device node.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    /// Its directory, relative to the root.
    pub(crate) directory: CString,
    pub(crate) name: CString,
    /// The whole path on the host, for a bind mount where nodes may not be made.
    pub(crate) host: CString,
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The devices that every container has (OCI runtime specification, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The default devices, overridden and followed by those of the configuration.
pub(crate) fn prepare(configured: &[LinuxDevice]) -> Result<Vec<DevicePlan>> {
    let mut plans = Vec::new();
    for (path, major, minor) in DEFAULT {
        if !configured.iter().any(|device| device.path().as_os_str() == path) {
            plans.push(plan(path, libc::S_IFCHR | 0o666, (major, minor), (0, 0))?);
        }
    }
    for device in configured {
        plans.push(configured_plan(device)?);
    }
    Ok(plans)
}

fn configured_plan(device: &LinuxDevice) -> Result<DevicePlan> {
    let path = device
        .path()
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the path of a device is not UTF-8"))?;
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| {
            let attempt = format!("device {path} has number {number}");
            Error::new(ErrorKind::InvalidInput, attempt)
        })
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            let attempt = format!("device {path} has type \"a\"");
            return Err(Error::new(ErrorKind::InvalidInput, attempt));
        }
    };
    let mode = kind | (device.file_mode().unwrap_or(0o666) & 0o7777);
    let numbers = (number(device.major())?, number(device.minor())?);
    plan(path, mode, numbers, (device.uid().unwrap_or(0), device.gid().unwrap_or(0)))
}

fn plan(
    path: &str,
    mode: u32,
    (major, minor): (u32, u32),
    (uid, gid): (u32, u32),
) -> Result<DevicePlan> {
    let invalid =
        || Error::new(ErrorKind::InvalidInput, format!("device path {path:?} is not absolute"));
    if !path.starts_with('/') || has_parent(path.as_ref()) {
        return Err(invalid());
    }
    let (directory, name) = path.rsplit_once('/').ok_or_else(invalid)?;
    if name.is_empty() {
        return Err(invalid());
    }
    let c_string = |text: &str| CString::new(text).map_err(|_| invalid());
    let directory =
        if directory.is_empty() { CString::default() } else { target(directory.as_ref())? };
    Ok(DevicePlan {
        directory,
        name: c_string(name)?,
        host: c_string(path)?,
        mode,
        major,
        minor,
        uid,
        gid,
    })
}

/// The links that every container has in `/dev`: target and path.
pub(crate) fn links() -> Vec<(CString, CString)> {
    [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"pts/ptmx", c"ptmx"),
    ]
    .map(|(target, name)| (target.to_owned(), name.to_owned()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_device_replaces_the_default() {
        let device: LinuxDevice = serde_json::from_str(
            r#"{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384,"uid":5}"#,
        )
        .unwrap();
        let plans = prepare(&[device]).unwrap();
        assert_eq!(plans.len(), DEFAULT.len());
        assert_eq!((plans[5].mode & 0o777, plans[5].uid), (0o600, 5));
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for path in ["dev/x", "/dev/../x", "/dev/", ""] {
            assert!(plan(path, 0, (0, 0), (0, 0)).is_err(), "{path}");
        }
    }
}
