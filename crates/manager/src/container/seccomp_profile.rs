//! Docker's seccomp profile format, and the default profile in it, resolved to the runtime specification's.
//!
//! A profile in docker's format says which of its rules depend on capabilities, architecture or kernel; a container gets
//! the rules that hold for it. `default_seccomp.json` allows what ordinary programs need and denies by EPERM:
//! - kernel administration, mounting and new namespaces without the capability for it;
//! - socket families other than UNIX, INET, INET6, NETLINK, and PACKET with CAP_NET_RAW (the runtime compares families as
//!   the kernel does, in 32 bits);
//! - io_uring, userfaultfd, keyrings and BPF, whose attack surface is larger than their use in a container.
//!
//! clone3 answers ENOSYS, so that C libraries fall back to clone, whose flags a filter can see; and so do calls newer than
//! the profile, which the runtime adds.

use std::fs;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The default profile, in docker's format.
const DEFAULT_PROFILE: &str = include_str!("default_seccomp.json");

/// The default profile for a container with these capabilities (`CAP_SYS_ADMIN`, or without the prefix).
///
/// # Errors
/// The kernel's version cannot be read.
pub(crate) fn default_profile(capabilities: &[&str]) -> Result<LinuxSeccomp> {
    parse(DEFAULT_PROFILE, capabilities)
}

/// A user's profile: docker's format, or the `linux.seccomp` object of the runtime specification.
///
/// # Errors
/// The text is no profile, or says both `architectures` and `archMap`.
pub(crate) fn parse(text: &str, capabilities: &[&str]) -> Result<LinuxSeccomp> {
    let profile: Profile = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the seccomp profile cannot be read: {error}")))?;
    let host = Host {
        architecture: std::env::consts::ARCH,
        kernel: kernel_version()?,
        capabilities: capabilities.iter().map(|name| name.trim_start_matches("CAP_")).collect(),
    };
    profile.resolve(&host)
}

/// docker's format. Fields of the runtime specification pass through.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchitectureFamily>>,
    #[serde(default)]
    flags: Option<serde_json::Value>,
    #[serde(default)]
    listener_path: Option<std::path::PathBuf>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

/// What else runs on machines of an architecture.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureFamily {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What the rules' conditions are about.
struct Host<'a> {
    /// As Rust names it.
    architecture: &'static str,
    kernel: (u32, u32),
    /// Without the `CAP_` prefix.
    capabilities: Vec<&'a str>,
}

impl Profile {
    fn resolve(self, host: &Host<'_>) -> Result<LinuxSeccomp> {
        if self.architectures.is_some() && self.arch_map.is_some() {
            return Err(Error::invalid(
                "the seccomp profile has both architectures and archMap; keep one of them",
            ));
        }
        let mut seccomp = LinuxSeccomp::default();
        seccomp.set_default_action(self.default_action);
        seccomp.set_default_errno_ret(self.default_errno_ret);
        seccomp.set_listener_path(self.listener_path);
        seccomp.set_listener_metadata(self.listener_metadata);
        if let Some(flags) = self.flags {
            let flags = serde_json::from_value(flags).map_err(|error| {
                Error::invalid(format!("the seccomp profile's flags cannot be read: {error}"))
            })?;
            seccomp.set_flags(flags);
        }
        let families = self.arch_map.unwrap_or_default();
        let family = families.into_iter().find(|f| Some(f.architecture) == host.arch());
        seccomp.set_architectures(self.architectures.or_else(|| {
            family.map(|family| {
                let mut all = vec![family.architecture];
                all.extend(family.sub_architectures.unwrap_or_default());
                all
            })
        }));
        let mut syscalls = Vec::new();
        for rule in self.syscalls.unwrap_or_default() {
            if rule.applies(host)? {
                syscalls.push(rule.resolve()?);
            }
        }
        seccomp.set_syscalls(Some(syscalls));
        Ok(seccomp)
    }
}

impl Rule {
    /// Every capability of `includes` and none of `excludes`; one of the architectures of `includes` and none of
    /// `excludes`; at least the kernel of `includes` and less than that of `excludes`.
    fn applies(&self, host: &Host<'_>) -> Result<bool> {
        if let Some(includes) = &self.includes {
            let capable = includes.caps.iter().flatten().all(|name| host.has_capability(name));
            let arches = includes.arches.as_deref().unwrap_or_default();
            let arch = arches.is_empty() || arches.iter().any(|name| host.is(name));
            let kernel = match &includes.min_kernel {
                Some(version) => host.kernel >= parse_version(version)?,
                None => true,
            };
            if !(capable && arch && kernel) {
                return Ok(false);
            }
        }
        if let Some(excludes) = &self.excludes {
            let capable = excludes.caps.iter().flatten().any(|name| host.has_capability(name));
            let arch = excludes.arches.iter().flatten().any(|name| host.is(name));
            let kernel = match &excludes.min_kernel {
                Some(version) => host.kernel >= parse_version(version)?,
                None => false,
            };
            if capable || arch || kernel {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn resolve(self) -> Result<LinuxSyscall> {
        let names = match (self.name, self.names) {
            (Some(_), Some(names)) if !names.is_empty() => {
                return Err(Error::invalid(
                    "a rule of the seccomp profile has both name and names; keep names",
                ));
            }
            (Some(name), _) => vec![name],
            (None, names) => names.unwrap_or_default(),
        };
        let mut syscall = LinuxSyscall::default();
        syscall.set_names(names);
        syscall.set_action(self.action);
        syscall.set_errno_ret(self.errno_ret);
        // docker's own profile writes "args": [] and null for none.
        syscall.set_args(self.args.filter(|args| !args.is_empty()));
        Ok(syscall)
    }
}

impl Host<'_> {
    fn has_capability(&self, name: &str) -> bool {
        self.capabilities.contains(&name.trim_start_matches("CAP_"))
    }

    fn arch(&self) -> Option<Arch> {
        match self.architecture {
            "x86_64" => Some(Arch::ScmpArchX86_64),
            "x86" => Some(Arch::ScmpArchX86),
            "aarch64" => Some(Arch::ScmpArchAarch64),
            "arm" => Some(Arch::ScmpArchArm),
            "riscv64" => Some(Arch::ScmpArchRiscv64),
            "s390x" => Some(Arch::ScmpArchS390x),
            "powerpc64" => Some(Arch::ScmpArchPpc64le),
            _ => None,
        }
    }

    /// Whether this is the architecture that the profile calls by Go's name.
    fn is(&self, name: &str) -> bool {
        let go = match self.architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        name == go
    }
}

fn kernel_version() -> Result<(u32, u32)> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).map_err(|error| {
        Error::io(format!("cannot read the kernel's version from {path}"), error)
    })?;
    parse_version(release.trim())
}

/// `4.8`, or the beginning of a release such as `6.1.0-9-amd64`.
fn parse_version(text: &str) -> Result<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::invalid(format!("\"{text}\" is not a kernel version such as 4.8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER_CAPABILITIES: [&str; 3] = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"];

    fn allowed(seccomp: &LinuxSeccomp, name: &str) -> bool {
        rules(seccomp, name)
            .any(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none())
    }

    fn rules<'a>(seccomp: &'a LinuxSeccomp, name: &str) -> impl Iterator<Item = &'a LinuxSyscall> {
        let name = name.to_owned();
        seccomp.syscalls().iter().flatten().filter(move |rule| rule.names().contains(&name))
    }

    fn families(seccomp: &LinuxSeccomp) -> Vec<u64> {
        let args = rules(seccomp, "socket").flat_map(|rule| rule.args().iter().flatten());
        args.map(LinuxSeccompArg::value).collect()
    }

    #[test]
    fn ordinary_calls_are_allowed_and_administration_is_not() {
        let seccomp = default_profile(&DOCKER_CAPABILITIES).unwrap();
        for name in ["read", "openat2", "futex_waitv", "ptrace", "chroot", "statmount"] {
            assert!(allowed(&seccomp, name), "{name}");
        }
        for name in
            ["mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "clone"]
        {
            assert!(!allowed(&seccomp, name), "{name}");
        }
        assert_eq!(seccomp.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(seccomp.default_errno_ret(), Some(1));
        let clone3: Vec<_> = rules(&seccomp, "clone3").map(LinuxSyscall::errno_ret).collect();
        assert_eq!(clone3, [Some(38)]);
    }

    #[test]
    fn capabilities_open_what_they_are_for() {
        let seccomp = default_profile(&["SYS_ADMIN", "NET_RAW"]).unwrap();
        for name in ["mount", "unshare", "setns", "bpf", "clone", "clone3"] {
            assert!(allowed(&seccomp, name), "{name}");
        }
        assert!(!allowed(&seccomp, "init_module"));
        assert_eq!(families(&seccomp), [1, 2, 10, 16, 17]);
        assert_eq!(families(&default_profile(&[]).unwrap()), [1, 2, 10, 16]);
    }

    #[test]
    fn every_architecture_of_the_machine_is_filtered() {
        let seccomp = default_profile(&[]).unwrap();
        let listed = seccomp.architectures().as_ref().unwrap();
        if cfg!(target_arch = "x86_64") {
            let expected = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
            assert_eq!(*listed, expected);
            assert!(allowed(&seccomp, "arch_prctl") && !allowed(&seccomp, "set_tls"));
        }
    }

    #[test]
    fn no_call_is_listed_twice_for_the_same_condition() {
        let seccomp = default_profile(&[]).unwrap();
        let mut names: Vec<&String> = seccomp
            .syscalls()
            .iter()
            .flatten()
            .filter(|rule| rule.args().is_none())
            .flat_map(LinuxSyscall::names)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn kernel_conditions_compare_versions() {
        for (text, expected) in
            [("4.8", (4, 8)), ("6.18.44-fc", (6, 18)), ("5.10.0-9-amd64", (5, 10))]
        {
            assert_eq!(parse_version(text).unwrap(), expected);
        }
        assert!(parse_version("new").is_err());
        let profile = |key: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],
                "action":"SCMP_ACT_ALLOW","{key}":{{"minKernel":"999.0"}}}}]}}"#
            )
        };
        assert!(!allowed(&parse(&profile("includes"), &[]).unwrap(), "read"));
        assert!(allowed(&parse(&profile("excludes"), &[]).unwrap(), "read"));
    }

    #[test]
    fn profiles_of_the_runtime_specification_pass_through() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO","args":[]}]}"#;
        let seccomp = parse(text, &[]).unwrap();
        assert_eq!(seccomp.architectures().as_deref(), Some(&[Arch::ScmpArchX86_64][..]));
        assert_eq!(seccomp.flags().as_ref().map(Vec::len), Some(1));
        assert!(rules(&seccomp, "mount").next().is_some());
    }

    #[test]
    fn bad_profiles_are_refused() {
        for text in [
            "",
            "[]",
            r#"{"syscalls":[]}"#,
            r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":[],"archMap":[]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],
                "action":"SCMP_ACT_ALLOW"}]}"#,
        ] {
            assert!(parse(text, &[]).is_err(), "{text}");
        }
    }
}
