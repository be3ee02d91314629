//! `--security-opt`, seccomp, hidden paths and sysctls.

use oci_spec::runtime::LinuxSeccomp;

use super::Capabilities;
use crate::container::seccomp_profile;
use crate::error::{Error, Result};
use crate::models::HostConfig;

/// Paths that Docker hides from unprivileged containers.
pub(super) const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that Docker makes read-only for unprivileged containers.
pub(super) const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The largest seccomp profile that is read.
const PROFILE_BYTES_MAX: usize = 4 << 20;

/// The parsed security options of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub(crate) no_new_privileges: bool,
    pub(crate) system_paths_unconfined: bool,
    profile: Profile,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Profile {
    #[default]
    Default,
    Unconfined,
    /// The profile itself, JSON: clients send the text, not the path.
    Text(String),
}

impl SecurityOptions {
    /// Parses `name=value` (or the old `name:value`) options; refuses by name what is not built.
    pub(crate) fn parse(host: &HostConfig) -> Result<Self> {
        let mut options = Self::default();
        for option in host.security_opt.iter().flatten() {
            let (name, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
            match (name, value) {
                ("no-new-privileges", None | Some("true")) => options.no_new_privileges = true,
                ("no-new-privileges", Some("false")) => options.no_new_privileges = false,
                ("seccomp", Some("unconfined")) => options.profile = Profile::Unconfined,
                ("seccomp", Some("builtin")) => options.profile = Profile::Default,
                ("seccomp", Some(text)) if text.trim_start().starts_with('{') => {
                    if text.len() > PROFILE_BYTES_MAX {
                        return Err(Error::invalid("the seccomp profile is larger than 4 MiB"));
                    }
                    options.profile = Profile::Text(text.to_owned());
                }
                ("systempaths", Some("unconfined")) => options.system_paths_unconfined = true,
                // Nothing to switch off: these modules are not used on this host.
                ("apparmor", Some("unconfined" | "")) | ("label", Some("disable")) => {}
                ("apparmor" | "label", _) => {
                    return Err(Error::unsupported(format!(
                        "security option {option}: AppArmor and SELinux profiles are not built"
                    )));
                }
                _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            }
        }
        Ok(options)
    }

    /// The filter of the container's processes, `None` for no filter.
    pub(super) fn seccomp(
        &self,
        privileged: bool,
        capabilities: &Capabilities,
    ) -> Result<Option<LinuxSeccomp>> {
        let names: Vec<&str> = capabilities.names().collect();
        match &self.profile {
            Profile::Unconfined => Ok(None),
            Profile::Default if privileged => Ok(None),
            Profile::Default => seccomp_profile::default_profile(&names).map(Some),
            Profile::Text(text) => seccomp_profile::parse(text, &names).map(Some),
        }
    }
}

/// Lets only sysctls through that belong to a namespace the container has of its own.
pub(super) fn check_sysctl(key: &str, value: &str, own_network: bool, own_ipc: bool) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let plain = |text: &str| text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
    let path_like = key.split(['.', '/']).any(|part| part.is_empty() || part == "..");
    if !plain(key) || !plain(value) || value.contains('=') || path_like {
        return Err(Error::invalid(format!("invalid sysctl {key:?}={value:?}")));
    }
    let dotted = key.replace('/', ".");
    let ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
    let network = dotted.starts_with("net.");
    if ipc && own_ipc || network && own_network {
        return Ok(());
    }
    if ipc || network {
        let namespace = if ipc { "ipc" } else { "network" };
        return Err(Error::invalid(format!(
            "sysctl '{key}' is not allowed when the container shares the host's {namespace} namespace"
        )));
    }
    Err(Error::invalid(format!(
        "sysctl '{key}' is not allowed: it is not separate for each container"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Result<SecurityOptions> {
        let security_opt = Some(list.iter().map(|option| (*option).to_owned()).collect());
        SecurityOptions::parse(&HostConfig { security_opt, ..HostConfig::default() })
    }

    #[test]
    fn options_parse_in_both_spellings() {
        assert!(options(&["no-new-privileges"]).expect("good").no_new_privileges);
        assert!(options(&["no-new-privileges:true"]).expect("good").no_new_privileges);
        assert!(!options(&["no-new-privileges=false"]).expect("good").no_new_privileges);
        assert_eq!(options(&["seccomp=unconfined"]).expect("good").profile, Profile::Unconfined);
    }

    #[test]
    fn profiles_that_would_not_be_applied_are_refused() {
        for option in ["apparmor=docker-default", "label=type:x"] {
            assert_eq!(
                options(&[option]).expect_err(option).kind(),
                crate::ErrorKind::Unsupported,
                "{option}"
            );
        }
        assert!(options(&["seccomp=/etc/profile.json"]).is_err());
        assert!(options(&["nonsense"]).is_err());
    }

    #[test]
    fn sysctls_of_the_host_and_injected_values_are_refused() {
        assert!(check_sysctl("net.ipv4.ip_forward", "1", true, true).is_ok());
        assert!(check_sysctl("kernel.shmmax", "1", true, true).is_ok());
        assert!(check_sysctl("fs.mqueue.msg_max", "1", true, true).is_ok());
        for (key, value) in [
            ("kernel.core_pattern", "|/x"),
            ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
            ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|/x"),
            ("net/../kernel/core_pattern", "x"),
            ("net..x", "1"),
        ] {
            assert!(check_sysctl(key, value, true, true).is_err(), "{key}={value:?}");
        }
        assert!(check_sysctl("net.ipv4.ip_forward", "1", false, true).is_err());
        assert!(check_sysctl("kernel.sem", "1", true, false).is_err());
    }
}
