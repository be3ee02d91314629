//! The one place where an image and a request become an OCI `config.json`.
//!
//! Everything that may influence a container passes here. From the image come only command, environment, working
//! directory, user, volumes, labels, ports, stop signal and health check, merged into [`ContainerRecord::config`]
//! beforehand; none of them can add a capability, a device, a mount of the host or weaken isolation. Those come from the
//! request alone, on top of Docker's defaults.
//!
//! [`build`] is a pure function of its input but for looking up device nodes that the request names.

mod capabilities;
mod devices;
mod mounts;
mod resources;
mod security;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec,
    UserBuilder,
};

use crate::config::{Config, Ulimit};
use crate::container::requests::TerminalSize;
use crate::container::user::User;
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::models::{ExecConfig, HostConfig, HostConfigCgroupnsModeEnum};

pub(crate) use capabilities::Capabilities;
pub(crate) use resources::resources;
pub(crate) use security::SecurityOptions;

/// Where the program of `--init` appears in the container, as in Docker.
const INIT_DESTINATION: &str = "/sbin/docker-init";

/// What is made in a container's own layer, where the image has it not, for our own mounts. It is no change of the
/// container's; what is made for a mount that was asked for is, as with docker.
pub(super) const MOUNT_POINTS: &[&str] =
    &["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", INIT_DESTINATION];
/// The path that a process searches when its environment has none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A namespace that the container may share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one at this path.
    Join(PathBuf),
}

/// All that [`build`] needs.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) record: &'a ContainerRecord,
    pub(crate) config: &'a Config,
    pub(crate) user: &'a User,
    pub(crate) network: Namespace,
    pub(crate) pid: Namespace,
    pub(crate) ipc: Namespace,
    /// Files of ours that are bound over those of the image: path in the container, path on the host.
    pub(crate) files: &'a [(&'static str, PathBuf)],
    /// The host has only the unified cgroup hierarchy.
    pub(crate) cgroup_v2: bool,
}

/// Builds the OCI configuration.
pub(crate) fn build(input: &Input<'_>) -> Result<Spec> {
    let host = &input.record.host_config;
    let security = SecurityOptions::parse(host)?;
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(host.readonly_rootfs.unwrap_or(false)));
    let mut spec = Spec::default();
    spec.set_version("1.2.0".into());
    spec.set_root(Some(root));
    spec.set_process(Some(process(input, &security)?));
    spec.set_hostname(hostname(input));
    spec.set_domainname(input.record.config.domainname.clone().filter(|name| !name.is_empty()));
    spec.set_mounts(Some(mounts::mounts(input)?));
    spec.set_annotations(host.annotations.clone());
    spec.set_linux(Some(linux(input, &security)?));
    Ok(spec)
}

/// All that [`exec_process`] needs.
#[derive(Debug)]
pub(crate) struct ExecInput<'a> {
    pub(crate) record: &'a ContainerRecord,
    pub(crate) config: &'a Config,
    pub(crate) exec: &'a ExecConfig,
    pub(crate) user: &'a User,
    pub(crate) console_size: Option<TerminalSize>,
}

/// A further process of a container: under the container's limits and rights, unless it is privileged.
pub(crate) fn exec_process(input: &ExecInput<'_>) -> Result<Process> {
    let (record, exec) = (input.record, input.exec);
    let host = &record.host_config;
    let security = SecurityOptions::parse(host)?;
    let tty = exec.tty.unwrap_or(false);
    let mut process = Process::default();
    process.set_args(exec.cmd.clone());
    process.set_terminal(Some(tty));
    process.set_console_size(input.console_size.map(terminal_box).transpose()?);
    let mut variables = environment(record, input.user);
    if tty && !variables.iter().any(|variable| variable.starts_with("TERM=")) {
        variables.push("TERM=xterm".into());
    }
    override_variables(&mut variables, exec.env.as_deref().unwrap_or_default());
    process.set_env(Some(variables));
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let directory = given(&exec.working_dir).or_else(|| given(&record.config.working_dir));
    let directory = directory.unwrap_or_else(|| "/".into());
    if !directory.starts_with('/') {
        return Err(Error::invalid(format!("Cwd must be an absolute path: {directory}")));
    }
    process.set_cwd(PathBuf::from(directory));
    process.set_user(user(input.user)?);
    let capabilities =
        if exec.privileged == Some(true) { Capabilities::all() } else { Capabilities::of(host)? };
    process.set_capabilities(Some(capability_sets(&capabilities, input.user)?));
    process.set_rlimits(Some(rlimits(host, &input.config.default_ulimits)?));
    process.set_no_new_privileges(Some(security.no_new_privileges));
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
    process.set_oom_score_adj(Some(oom_score_adjustment(host)?));
    Ok(process)
}

/// How readily the kernel ends the container's processes when memory runs out. Always said: what they would inherit is
/// the daemon's own score, which is lower.
fn oom_score_adjustment(host: &HostConfig) -> Result<i32> {
    let score = host.oom_score_adj.unwrap_or(0);
    i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score)).ok_or_else(|| {
        Error::invalid(format!("invalid value {score}, range for oom score adj is [-1000, 1000]"))
    })
}

/// The host name that the container shows: its own, or none when it shares the host's.
fn hostname(input: &Input<'_>) -> Option<String> {
    if uts(&input.record.host_config) == Namespace::Host {
        return None;
    }
    input.record.config.hostname.clone().filter(|name| !name.is_empty())
}

fn uts(host: &HostConfig) -> Namespace {
    match host.uts_mode.as_deref() {
        Some("host") => Namespace::Host,
        _ => Namespace::Private,
    }
}

fn process(input: &Input<'_>, security: &SecurityOptions) -> Result<Process> {
    let record = input.record;
    let host = &record.host_config;
    let mut process = Process::default();
    let mut args = vec![record.path.clone()];
    args.extend(record.args.iter().cloned());
    if host.init == Some(true) {
        args.splice(0..0, [INIT_DESTINATION.to_owned(), "--".to_owned()]);
    }
    process.set_args(Some(args));
    let tty = record.config.tty.unwrap_or(false);
    process.set_terminal(Some(tty));
    process.set_console_size(console_size(host)?);
    process.set_env(Some(environment(record, input.user)));
    let directory =
        record.config.working_dir.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    if !directory.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{directory}' is invalid, it needs to be an absolute path"
        )));
    }
    process.set_cwd(PathBuf::from(directory));
    process.set_user(user(input.user)?);
    let capabilities = Capabilities::of(host)?;
    process.set_capabilities(Some(capability_sets(&capabilities, input.user)?));
    process.set_rlimits(Some(rlimits(host, &input.config.default_ulimits)?));
    process.set_no_new_privileges(Some(security.no_new_privileges));
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
    process.set_oom_score_adj(Some(oom_score_adjustment(host)?));
    Ok(process)
}

fn console_size(host: &HostConfig) -> Result<Option<oci_spec::runtime::Box>> {
    let Some([height, width]) =
        host.console_size.as_deref().and_then(|size| <[usize; 2]>::try_from(size).ok())
    else {
        return Ok(None);
    };
    let clip = |cells: usize| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = TerminalSize { width: clip(width), height: clip(height) };
    if size.width == 0 || size.height == 0 {
        return Ok(None);
    }
    terminal_box(size).map(Some)
}

fn terminal_box(size: TerminalSize) -> Result<oci_spec::runtime::Box> {
    BoxBuilder::default().height(size.height).width(size.width).build().map_err(failed)
}

/// The user part of a process, also used for execs.
pub(crate) fn user(user: &User) -> Result<oci_spec::runtime::User> {
    UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.groups.clone())
        .build()
        .map_err(failed)
}

/// Docker's order: what every process gets, then image and request; HOME from the user unless set.
fn environment(record: &ContainerRecord, user: &User) -> Vec<String> {
    let mut variables = vec![format!("PATH={DEFAULT_PATH}")];
    if let Some(hostname) = record.config.hostname.as_deref().filter(|name| !name.is_empty()) {
        variables.push(format!("HOSTNAME={hostname}"));
    }
    if record.config.tty.unwrap_or(false) {
        variables.push("TERM=xterm".into());
    }
    override_variables(&mut variables, record.config.env.as_deref().unwrap_or_default());
    if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
        variables.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
    }
    variables
}

/// Sets `NAME=value`, replacing an earlier value in place; a bare `NAME` removes it.
pub(crate) fn override_variables(variables: &mut Vec<String>, changes: &[String]) {
    for change in changes {
        let name = change.split('=').next().unwrap_or(change);
        let same = |variable: &String| variable.split('=').next() == Some(name);
        let place = variables.iter().position(same);
        match (place, change.contains('=')) {
            (Some(place), true) => variables[place].clone_from(change),
            (Some(place), false) => drop(variables.remove(place)),
            (None, true) => variables.push(change.clone()),
            (None, false) => {}
        }
    }
}

/// Root holds what it may; another user holds nothing until it executes a file that gives it something, as execve(2)
/// would have it. Inheritable and ambient stay empty (CVE-2022-24769).
pub(crate) fn capability_sets(
    capabilities: &Capabilities,
    user: &User,
) -> Result<LinuxCapabilities> {
    let bounding = capabilities.to_oci()?;
    let held = if user.uid == 0 { bounding.clone() } else { Default::default() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding));
    sets.set_permitted(Some(held.clone()));
    sets.set_effective(Some(held));
    sets.set_inheritable(Some(Default::default()));
    sets.set_ambient(Some(Default::default()));
    Ok(sets)
}

fn rlimits(
    host: &HostConfig,
    defaults: &std::collections::BTreeMap<String, Ulimit>,
) -> Result<Vec<PosixRlimit>> {
    let mut limits = defaults.clone();
    for ulimit in host.ulimits.iter().flatten() {
        let name = ulimit.name.clone().unwrap_or_default();
        let soft = ulimit.soft.unwrap_or(0);
        let hard = ulimit.hard.unwrap_or(soft);
        if hard != -1 && (soft > hard || soft == -1) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {name} {soft} > {hard}"
            )));
        }
        limits.insert(name, Ulimit { soft, hard });
    }
    limits
        .iter()
        .map(|(name, limit)| {
            let kind: PosixRlimitType =
                serde_json::from_value(format!("RLIMIT_{}", name.to_ascii_uppercase()).into())
                    .map_err(|_| Error::invalid(format!("invalid ulimit type: {name}")))?;
            // -1 is RLIM_INFINITY, all bits set.
            let bits = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            PosixRlimitBuilder::default()
                .typ(kind)
                .soft(bits(limit.soft))
                .hard(bits(limit.hard))
                .build()
                .map_err(failed)
        })
        .collect()
}

fn linux(input: &Input<'_>, security: &SecurityOptions) -> Result<Linux> {
    let record = input.record;
    let host = &record.host_config;
    let privileged = host.privileged.unwrap_or(false);
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(input)?));
    linux.set_cgroups_path(Some(cgroups_path(record, input.config)));
    linux.set_sysctl(Some(sysctls(input)?));
    let nodes = devices::nodes(host)?;
    let mut limits = resources(host)?;
    limits.set_devices(Some(devices::rules(host, &nodes)?));
    linux.set_resources(Some(limits));
    linux.set_devices(Some(nodes.into_iter().map(|node| node.device).collect()));
    linux.set_seccomp(security.seccomp(privileged, &Capabilities::of(host)?)?);
    let hide = !privileged && !security.system_paths_unconfined;
    let paths = |requested: &Option<Vec<String>>, defaults: &[&str]| match requested {
        Some(paths) => paths.clone(),
        None if hide => defaults.iter().map(|path| (*path).to_owned()).collect(),
        None => Vec::new(),
    };
    linux.set_masked_paths(Some(paths(&host.masked_paths, security::MASKED_PATHS)));
    linux.set_readonly_paths(Some(paths(&host.readonly_paths, security::READONLY_PATHS)));
    linux.set_rootfs_propagation(mounts::rootfs_propagation(record));
    Ok(linux)
}

fn namespaces(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    let host = &input.record.host_config;
    let privileged = host.privileged.unwrap_or(false);
    // Docker: the host's cgroup namespace on v1, and for privileged containers there; a private one on v2.
    let cgroup = match host.cgroupns_mode {
        Some(HostConfigCgroupnsModeEnum::PRIVATE) => Namespace::Private,
        Some(HostConfigCgroupnsModeEnum::HOST) => Namespace::Host,
        _ if input.cgroup_v2 && !privileged => Namespace::Private,
        _ => Namespace::Host,
    };
    let all = [
        (LinuxNamespaceType::Mount, Namespace::Private),
        (LinuxNamespaceType::Network, input.network.clone()),
        (LinuxNamespaceType::Uts, uts(host)),
        (LinuxNamespaceType::Pid, input.pid.clone()),
        (LinuxNamespaceType::Ipc, input.ipc.clone()),
        (LinuxNamespaceType::Cgroup, cgroup),
    ];
    let mut namespaces = Vec::new();
    for (kind, namespace) in all {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        match namespace {
            Namespace::Host => {}
            Namespace::Private => namespaces.push(builder.build().map_err(failed)?),
            Namespace::Join(path) => namespaces.push(builder.path(path).build().map_err(failed)?),
        }
    }
    Ok(namespaces)
}

/// `PARENT/ID`, or `SLICE:brig:ID` for systemd.
pub(crate) fn cgroups_path(record: &ContainerRecord, config: &Config) -> PathBuf {
    let requested = record.host_config.cgroup_parent.as_deref().filter(|parent| !parent.is_empty());
    if config.systemd_cgroup {
        let slice = requested.unwrap_or("system.slice");
        return PathBuf::from(format!("{slice}:brig:{}", record.id));
    }
    let parent = requested.unwrap_or(&config.cgroup_parent);
    Path::new("/").join(parent.trim_start_matches('/')).join(&record.id)
}

/// Docker's defaults for a network namespace of one's own, then the request's.
fn sysctls(input: &Input<'_>) -> Result<HashMap<String, String>> {
    let host = &input.record.host_config;
    let own_network = input.network != Namespace::Host;
    let mut sysctls = HashMap::new();
    if own_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    for (key, value) in host.sysctls.iter().flatten() {
        security::check_sysctl(key, value, own_network, input.ipc != Namespace::Host)?;
        sysctls.insert(key.clone(), value.clone());
    }
    Ok(sysctls)
}

fn failed(source: OciSpecError) -> Error {
    Error::invalid("build the OCI configuration").with_source(source)
}

#[cfg(test)]
mod tests;
