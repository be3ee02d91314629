//! AppArmor profiles and SELinux labels.

use std::ffi::CString;

use oci_spec::runtime::Process;

use crate::error::{Error, ErrorKind, Result};
use crate::process::plan::Label;

/// There while SELinux is active.
const SELINUX: &str = "/sys/fs/selinux/enforce";

fn inactive(name: &str, value: &str) -> Error {
    let attempt = format!("apply the {name} label {value:?}: {name} is not active");
    Error::new(ErrorKind::Unsupported, attempt)
        .with_advice("remove the label from the configuration or boot with the module")
}

/// The SELinux context of the files in filesystems that are made for the container (`linux.mountLabel`).
///
/// # Errors
/// `Unsupported` where SELinux is not active.
pub(crate) fn mount_label(label: Option<&str>) -> Result<Option<&str>> {
    match label.filter(|label| !label.is_empty()) {
        Some(label) if !std::path::Path::new(SELINUX).exists() => Err(inactive("SELinux", label)),
        label => Ok(label),
    }
}

/// The label that the program will get at its exec, if one is configured.
///
/// # Errors
/// `Unsupported` when the module is not active in this kernel: a container that was to be confined must not start
/// unconfined.
pub(crate) fn prepare(process: &Process) -> Result<Option<Label>> {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let apparmor = given(process.apparmor_profile());
    let selinux = given(process.selinux_label());
    let (value, files, probe, name) = match (apparmor, selinux) {
        (None, None) => return Ok(None),
        (Some(profile), _) => (
            format!("exec {profile}"),
            ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"].as_slice(),
            "/sys/module/apparmor/parameters/enabled",
            "AppArmor",
        ),
        (None, Some(label)) => (label, ["thread-self/attr/exec"].as_slice(), SELINUX, "SELinux"),
    };
    if !std::path::Path::new(probe).exists() {
        return Err(inactive(name, &value));
    }
    let value = CString::new(value).map_err(|_| {
        Error::new(ErrorKind::InvalidInput, format!("the {name} label contains a zero byte"))
    })?;
    let files = files.iter().filter_map(|file| CString::new(*file).ok()).collect();
    Ok(Some(Label { files, value }))
}
