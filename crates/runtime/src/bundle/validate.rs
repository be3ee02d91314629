//! Checks of a whole configuration, and the refusal by name of what is not built.

use std::ffi::CString;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::error::{Error, ErrorKind, Result};
use crate::protection::{Protection, on};
use crate::rootfs::Sysctl;
use crate::rootfs::options::propagation_of;

/// Limits on lists of the configuration.
const MOUNTS_MAX: usize = 4096;
const DEVICES_MAX: usize = 4096;
const PATHS_MAX: usize = 4096;
const HOOKS_MAX: usize = 128;
/// Lines of an id map that the kernel accepts (user_namespaces(7)).
const ID_MAPS_MAX: usize = 340;

/// Checks what does not need a plan.
///
/// # Errors
/// `InvalidInput` or `Unsupported`, naming the field.
pub(crate) fn validate(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    for (present, field) in [
        (spec.solaris().is_some(), "solaris"),
        (spec.windows().is_some(), "windows"),
        (spec.vm().is_some(), "vm"),
        (spec.zos().is_some(), "zos"),
    ] {
        if present {
            return Err(unsupported(field));
        }
    }
    if spec.uid_mappings().is_some() || spec.gid_mappings().is_some() {
        return Err(invalid("uidMappings and gidMappings belong into linux"));
    }
    if spec.root().is_none() {
        return Err(invalid("root is missing"));
    }
    if spec.process().is_none() {
        return Err(invalid("process is missing"));
    }
    limit("mounts", spec.mounts().as_ref().map(Vec::len), MOUNTS_MAX)?;
    if let Some(hooks) = spec.hooks() {
        crate::hooks::validate(hooks, HOOKS_MAX)?;
    }
    for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|value| value.len() > 64 || value.contains('\0')) {
            return Err(invalid(format!("{name} is longer than 64 bytes or has a zero byte")));
        }
    }
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux is missing"))?;
    validate_linux(spec, linux)
}

fn validate_linux(spec: &Spec, linux: &Linux) -> Result<()> {
    crate::network::prepare(linux)?;
    limit("linux.devices", linux.devices().as_ref().map(Vec::len), DEVICES_MAX)?;
    limit("linux.maskedPaths", linux.masked_paths().as_ref().map(Vec::len), PATHS_MAX)?;
    limit("linux.readonlyPaths", linux.readonly_paths().as_ref().map(Vec::len), PATHS_MAX)?;
    limit("linux.uidMappings", linux.uid_mappings().as_ref().map(Vec::len), ID_MAPS_MAX)?;
    limit("linux.gidMappings", linux.gid_mappings().as_ref().map(Vec::len), ID_MAPS_MAX)?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let kind = namespace.typ();
        if namespaces[..index].iter().any(|other| other.typ() == kind) {
            return Err(invalid(format!("linux.namespaces has {kind} twice")));
        }
        if namespace.path().as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(invalid(format!("linux.namespaces: the path of {kind} is not absolute")));
        }
    }
    let own = |kind: LinuxNamespaceType| namespaces.iter().any(|entry| entry.typ() == kind);
    if !own(LinuxNamespaceType::Mount) {
        return Err(Error::new(ErrorKind::Unsupported, "linux.namespaces without mount")
            .with_advice("a container needs a mount namespace of its own"));
    }
    if spec.hostname().is_some() && !own(LinuxNamespaceType::Uts) {
        return Err(invalid("hostname needs a uts namespace"));
    }
    if linux.time_offsets().is_some() && !own(LinuxNamespaceType::Time) {
        return Err(invalid("linux.timeOffsets needs a time namespace"));
    }
    let maps = linux.uid_mappings().is_some() || linux.gid_mappings().is_some();
    if maps && !own(LinuxNamespaceType::User) {
        return Err(invalid("linux.uidMappings needs a user namespace"));
    }
    if let Some(propagation) = linux.rootfs_propagation() {
        self::propagation(propagation)?;
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn unsupported(field: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{field} is for another platform than Linux"))
        .with_advice("remove it from the configuration")
}

fn limit(field: &str, length: Option<usize>, most: usize) -> Result<()> {
    match length {
        Some(length) if length > most => {
            Err(invalid(format!("{field} has {length} entries, at most {most} are allowed")))
        }
        _ => Ok(()),
    }
}

fn version(version: &str) -> Result<()> {
    if version.starts_with("1.") {
        return Ok(());
    }
    let shown: String = version.chars().take(32).collect();
    Err(Error::new(ErrorKind::Unsupported, format!("ociVersion {shown:?} is not 1.x")))
}

/// Parses `linux.rootfsPropagation`.
pub(crate) fn propagation(text: &str) -> Result<(u64, bool)> {
    propagation_of(text)
        .ok_or_else(|| invalid(format!("linux.rootfsPropagation {text:?} is unknown")))
}

/// Prepares kernel parameters; only those that a namespace of the container owns are allowed.
pub(crate) fn sysctls(linux: &Linux) -> Result<Vec<Sysctl>> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let own = |kind: LinuxNamespaceType| namespaces.iter().any(|entry| entry.typ() == kind);
    let mut sysctls = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let path = key.replace('.', "/");
        let wrong = |what: &str| Err(invalid(format!("linux.sysctl {key:?}: {what}")));
        let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        if !plain || path.split('/').any(str::is_empty) {
            return wrong("not the name of a kernel parameter");
        }
        if value.bytes().any(|byte| byte == 0 || byte == b'\n') {
            return wrong("its value has a zero byte or a line break");
        }
        let ipc = path.starts_with("fs/mqueue/")
            || matches!(
                path.as_str(),
                "kernel/msgmax"
                    | "kernel/msgmnb"
                    | "kernel/msgmni"
                    | "kernel/sem"
                    | "kernel/shmall"
                    | "kernel/shmmax"
                    | "kernel/shmmni"
                    | "kernel/shm_rmid_forced"
            );
        let allowed = (ipc && own(LinuxNamespaceType::Ipc))
            || (path.starts_with("net/") && own(LinuxNamespaceType::Network))
            || (matches!(path.as_str(), "kernel/hostname" | "kernel/domainname")
                && own(LinuxNamespaceType::Uts))
            || (path.starts_with("user/") && own(LinuxNamespaceType::User));
        if !allowed && on(Protection::SysctlOwner) {
            return wrong("no namespace of the container owns it");
        }
        let path = CString::new(format!("sys/{path}"))
            .map_err(|_| invalid("linux.sysctl contains a zero byte"))?;
        sysctls.push(Sysctl { path, value: value.clone().into_bytes() });
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(text: &str) -> Linux {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_namespaced_sysctls_with_clean_values_pass() {
        let with = |key: &str, value: &str| {
            let map = serde_json::json!({
                "sysctl": {key: value},
                "namespaces": [{"type": "network"}, {"type": "ipc"}],
            });
            sysctls(&serde_json::from_value(map).unwrap())
        };
        let parsed = with("net.ipv4.ip_forward", "1").unwrap();
        assert_eq!(parsed[0].path.as_c_str(), c"sys/net/ipv4/ip_forward");
        for (key, value) in [
            ("kernel.core_pattern", "|x"),
            ("net.ipv4.ip_forward", "1\n2"),
            ("net..x", "1"),
            ("net/../kernel/core_pattern", "1"),
            ("kernel.hostname", "x"),
        ] {
            assert!(with(key, value).is_err(), "{key}");
        }
    }

    #[test]
    fn a_million_mounts_are_refused_by_name() {
        let mut spec = Spec::default();
        let mount: oci_spec::runtime::Mount =
            serde_json::from_str(r#"{"destination":"/x"}"#).unwrap();
        spec.set_mounts(Some(vec![mount; 1_000_000]));
        let error = validate(&spec).unwrap_err();
        assert!(error.to_string().contains("mounts has 1000000"), "{error}");
    }

    #[test]
    fn namespaces_are_checked() {
        let mut spec = Spec::default();
        for (text, word) in [
            (r#"{"namespaces":[{"type":"pid"}]}"#, "mount"),
            (r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#, "twice"),
            (r#"{"namespaces":[{"type":"mount"}],"netDevices":{"x":{}}}"#, "netDevices"),
        ] {
            spec.set_linux(Some(linux(text)));
            let error = validate(&spec).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
