//! What `run` and `create` ask for: docker's flags, turned into one creation request.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use brig_engine_api::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, NetworkingConfig, PortMap,
    ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice,
};
use brig_engine_api::query;
use brig_engine_api::restart::Restarting;
use clap::{Args, ValueEnum};

use super::health::HealthOptions;
use super::mount::{self, Volume};
use super::resources::{self, ResourceOptions};
use super::{environment, pairs, port, size};

/// When to pull the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Even when it is there
    Always,
    /// When it is not there
    #[default]
    Missing,
    /// Never: fail when it is not there
    Never,
}

/// The flags of a new container.
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Keep standard input open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Attach to stdin, stdout or stderr
    #[arg(short, long, value_name = "STREAM", ignore_case = true)]
    pub(crate) attach: Vec<StandardStream>,
    /// Remove the container and its anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t)]
    pub(crate) pull: Pull,
    /// Platform of the image: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// No progress while pulling
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    network: NetworkOptions,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    isolation: IsolationOptions,
    #[command(flatten)]
    resources: ResourceOptions,
    #[command(flatten)]
    more_resources: CreationLimits,
    #[command(flatten)]
    health: HealthOptions,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, the command and its arguments
    #[arg(required = true, value_names = ["IMAGE", "COMMAND"], num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) image_and_command: Vec<String>,
}

/// A stream of `--attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StandardStream {
    Stdin,
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct ProcessOptions {
    /// Program instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Further groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an OCI annotation
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds until a stop becomes a kill
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Run an init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Log driver
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Log driver option
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// OCI runtime to use
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct NetworkOptions {
    /// Publish a port: [[ADDRESS:]HOSTPORT:]PORT[/tcp|udp]
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish all exposed ports to random ones
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Network to join: NAME, bridge, host, none or container:NAME
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name in the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Fixed IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Fixed IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// MAC address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// DNS server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Link to another container
    #[arg(long, value_name = "CONTAINER")]
    link: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage")]
struct StorageOptions {
    /// Bind mount or volume: [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…,…
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Temporary file system: TARGET[:OPTIONS]
    #[arg(long, value_name = "TMPFS")]
    tmpfs: Vec<String>,
    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Driver of new volumes
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// Option of the storage driver
    #[arg(long, value_name = "NAME=VALUE")]
    storage_opt: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Isolation")]
struct IsolationOptions {
    /// Nearly no isolation: all devices, all capabilities
    #[arg(long)]
    privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Security option, such as seccomp=FILE or no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give access to a device: HOST[:CONTAINER][:rwm]
    #[arg(long, value_name = "DEVICE", value_parser = resources::device)]
    device: Vec<DeviceMapping>,
    /// Add a rule to the list of allowed devices
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host, none or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// User namespace: host
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long, value_name = "MODE", value_parser = ["private", "host"])]
    cgroupns: Option<String>,
    /// Parent cgroup
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Set a namespaced kernel parameter
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Isolation technology (only "default" on Linux)
    #[arg(long, value_name = "NAME", value_parser = ["default"])]
    isolation: Option<String>,
    /// GPUs to add
    #[arg(long, value_name = "REQUEST")]
    gpus: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct CreationLimits {
    /// Limit of setrlimit(2): NAME=SOFT[:HARD]
    #[arg(long, value_name = "ULIMIT", value_parser = resources::ulimit)]
    ulimit: Vec<ResourcesUlimits>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    shm_size: Option<i64>,
    /// Preference for the OOM killer, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i64>,
    /// Never kill for lack of memory
    #[arg(long)]
    oom_kill_disable: bool,
    /// Swappiness, 0 to 100
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Relative weight of a device: DEVICE:WEIGHT
    #[arg(long, value_name = "LIMIT", value_parser = resources::weight_device)]
    blkio_weight_device: Vec<ResourcesBlkioWeightDevice>,
    /// Read rate of a device in bytes per second: DEVICE:RATE
    #[arg(long, value_name = "LIMIT", value_parser = resources::throttle_bytes)]
    device_read_bps: Vec<ThrottleDevice>,
    /// Write rate of a device in bytes per second
    #[arg(long, value_name = "LIMIT", value_parser = resources::throttle_bytes)]
    device_write_bps: Vec<ThrottleDevice>,
    /// Read rate of a device in operations per second
    #[arg(long, value_name = "LIMIT", value_parser = resources::throttle_operations)]
    device_read_iops: Vec<ThrottleDevice>,
    /// Write rate of a device in operations per second
    #[arg(long, value_name = "LIMIT", value_parser = resources::throttle_operations)]
    device_write_iops: Vec<ThrottleDevice>,
}

/// What follows the flags is taken as it is, so a flag that Brig does not know arrives as the first word of it.
pub(crate) fn refuse_unknown_flag(first: &str) -> Result<()> {
    if first.starts_with('-') {
        bail!("unknown flag {first:?}: see --help for those that Brig has");
    }
    Ok(())
}

/// A list where an empty one means "not asked for".
fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

/// A map where an empty one means "not asked for".
fn some_map(values: HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!values.is_empty()).then_some(values)
}

impl ContainerOptions {
    /// The image's name.
    pub(crate) fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// Whether a stream is asked for by `--attach`; without the flag, `default`.
    pub(crate) fn attaches(&self, stream: StandardStream, default: bool) -> bool {
        if self.attach.is_empty() { default } else { self.attach.contains(&stream) }
    }

    /// The query of the creation.
    pub(crate) fn query(&self) -> query::CreateContainer {
        query::CreateContainer { name: self.name.clone(), platform: self.platform.clone() }
    }

    /// The body of the creation with its restart policy. `attached` is as for [`body`](Self::body).
    pub(crate) fn restarting(&self, attached: bool) -> Result<Restarting<ContainerCreateBody>> {
        let restart = self.resources.restart.as_ref();
        let on_unhealthy = restart.is_some_and(|restart| restart.on_unhealthy);
        Ok(Restarting { body: self.body(attached)?, on_unhealthy })
    }

    /// The body of the creation. `attached` is whether the caller will attach to the output.
    pub(crate) fn body(&self, attached: bool) -> Result<ContainerCreateBody> {
        refuse_unknown_flag(self.image())?;
        if self.isolation.gpus.is_some() {
            bail!("--gpus is not built yet: give the device with --device");
        }
        let mut ports = PortMap::new();
        for published in &self.network.publish {
            port::publish(published, &mut ports)?;
        }
        let mut exposed: Vec<String> = ports.keys().cloned().collect();
        for port in &self.network.expose {
            exposed.extend(port::expose(port)?);
        }
        let (host_config, anonymous) = self.host_config(ports)?;
        let stdin = self.attaches(StandardStream::Stdin, attached) && self.interactive;
        let process = &self.process;
        Ok(ContainerCreateBody {
            hostname: self.network.hostname.clone(),
            domainname: self.network.domainname.clone(),
            user: process.user.clone(),
            attach_stdin: Some(stdin),
            attach_stdout: Some(self.attaches(StandardStream::Stdout, attached)),
            attach_stderr: Some(self.attaches(StandardStream::Stderr, attached)),
            exposed_ports: some(exposed),
            tty: Some(self.tty),
            open_stdin: Some(self.interactive),
            stdin_once: Some(stdin),
            env: some(environment::variables(&process.env_file, &process.env)?),
            cmd: some(self.image_and_command.iter().skip(1).cloned().collect()),
            healthcheck: self.health.config()?,
            image: Some(self.image().to_owned()),
            volumes: some(anonymous),
            working_dir: process.workdir.clone(),
            entrypoint: process.entrypoint.as_ref().map(|program| vec![program.clone()]),
            labels: some_map(environment::labels(&process.label_file, &process.label)?),
            stop_signal: process.stop_signal.clone(),
            stop_timeout: process.stop_timeout,
            host_config: Some(host_config),
            networking_config: self.network.endpoints()?,
            ..ContainerCreateBody::default()
        })
    }

    fn host_config(&self, ports: PortMap) -> Result<(HostConfig, Vec<String>)> {
        let mut config = HostConfig { auto_remove: Some(self.rm), ..HostConfig::default() };
        self.process.apply(&mut config);
        self.network.apply(&mut config, ports);
        let anonymous = self.storage.apply(&mut config)?;
        self.isolation.apply(&mut config)?;
        self.resources.apply(&mut config);
        self.more_resources.apply(&mut config);
        Ok((config, anonymous))
    }
}

impl ProcessOptions {
    fn apply(&self, config: &mut HostConfig) {
        config.group_add = some(self.group_add.clone());
        config.annotations = some_map(pairs(&self.annotation));
        config.init = self.init.then_some(true);
        config.runtime.clone_from(&self.runtime);
        if self.log_driver.is_some() || !self.log_opt.is_empty() {
            config.log_config = Some(HostConfigLogConfig {
                typ: self.log_driver.clone(),
                config: Some(pairs(&self.log_opt)),
            });
        }
    }
}

impl NetworkOptions {
    fn apply(&self, config: &mut HostConfig, ports: PortMap) {
        config.network_mode = self.network.first().cloned();
        config.port_bindings = (!ports.is_empty()).then_some(ports);
        config.publish_all_ports = Some(self.publish_all);
        config.dns = some(self.dns.clone());
        config.dns_search = some(self.dns_search.clone());
        config.dns_options = some(self.dns_option.clone());
        config.extra_hosts =
            some(self.add_host.iter().map(|line| line.replacen('=', ":", 1)).collect());
        config.links = some(self.link.clone());
    }

    /// Settings of the networks to join, where a name alone does not say it all.
    fn endpoints(&self) -> Result<Option<NetworkingConfig>> {
        let particular = !self.network_alias.is_empty()
            || self.ip.is_some()
            || self.ip6.is_some()
            || self.mac_address.is_some();
        let Some((first, others)) = self.network.split_first() else {
            if particular
                && (self.ip.is_some() || self.ip6.is_some() || !self.network_alias.is_empty())
            {
                bail!("--ip, --ip6 and --network-alias need a network of your own: give --network");
            }
            return Ok(None);
        };
        if !particular && others.is_empty() {
            return Ok(None);
        }
        let address = self.ip.is_some() || self.ip6.is_some();
        let settings = EndpointSettings {
            aliases: some(self.network_alias.clone()),
            mac_address: self.mac_address.clone(),
            ipam_config: address.then(|| EndpointIpamConfig {
                ipv4_address: self.ip.clone(),
                ipv6_address: self.ip6.clone(),
                link_local_ips: None,
            }),
            ..EndpointSettings::default()
        };
        let mut endpoints = HashMap::from([(first.clone(), settings)]);
        endpoints.extend(others.iter().map(|name| (name.clone(), EndpointSettings::default())));
        Ok(Some(NetworkingConfig { endpoints_config: Some(endpoints) }))
    }
}

impl StorageOptions {
    /// Fills in the mounts and returns the targets of anonymous volumes.
    fn apply(&self, config: &mut HostConfig) -> Result<Vec<String>> {
        let here = std::env::current_dir().context("find the working directory")?;
        let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
        for volume in &self.volume {
            match mount::volume(volume, &here)? {
                Volume::Bind(bind) => binds.push(bind),
                Volume::Anonymous(target) => anonymous.push(target),
            }
        }
        config.binds = some(binds);
        let mounts: Result<Vec<_>> =
            self.mount.iter().map(|text| mount::mount(text, &here)).collect();
        config.mounts = some(mounts?);
        let tmpfs: Result<HashMap<_, _>> =
            self.tmpfs.iter().map(|text| mount::tmpfs(text)).collect();
        config.tmpfs = some_map(tmpfs?);
        config.volumes_from = some(self.volumes_from.clone());
        config.volume_driver.clone_from(&self.volume_driver);
        config.storage_opt = some_map(pairs(&self.storage_opt));
        config.readonly_rootfs = Some(self.read_only);
        Ok(anonymous)
    }
}

impl IsolationOptions {
    fn apply(&self, config: &mut HostConfig) -> Result<()> {
        config.privileged = Some(self.privileged);
        config.cap_add = some(self.cap_add.clone());
        config.cap_drop = some(self.cap_drop.clone());
        config.security_opt = some(self.security_options()?);
        config.devices = some(self.device.clone());
        config.device_cgroup_rules = some(self.device_cgroup_rule.clone());
        config.pid_mode.clone_from(&self.pid);
        config.ipc_mode.clone_from(&self.ipc);
        config.uts_mode.clone_from(&self.uts);
        config.userns_mode.clone_from(&self.userns);
        config.cgroup_parent.clone_from(&self.cgroup_parent);
        config.sysctls = some_map(pairs(&self.sysctl));
        config.cgroupns_mode = self.cgroupns.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        });
        Ok(())
    }

    /// A seccomp profile is a file here but its content on the wire, since the daemon may be elsewhere.
    fn security_options(&self) -> Result<Vec<String>> {
        self.security_opt
            .iter()
            .map(|option| match option.split_once(['=', ':']) {
                Some(("seccomp", profile)) if !["unconfined", "builtin"].contains(&profile) => {
                    let text = std::fs::read_to_string(profile)
                        .with_context(|| format!("read the seccomp profile {profile}"))?;
                    Ok(format!("seccomp={text}"))
                }
                Some((name, value)) => Ok(format!("{name}={value}")),
                None => Ok(option.clone()),
            })
            .collect()
    }
}

impl ResourceOptions {
    /// Fills in the limits.
    fn apply(&self, config: &mut HostConfig) {
        config.memory = self.memory;
        config.memory_reservation = self.memory_reservation;
        config.memory_swap = self.memory_swap;
        config.nano_cpus = self.cpus;
        config.cpu_shares = self.cpu_shares;
        config.cpu_period = self.cpu_period;
        config.cpu_quota = self.cpu_quota;
        config.cpu_realtime_period = self.cpu_rt_period;
        config.cpu_realtime_runtime = self.cpu_rt_runtime;
        config.cpuset_cpus.clone_from(&self.cpuset_cpus);
        config.cpuset_mems.clone_from(&self.cpuset_mems);
        config.pids_limit = self.pids_limit;
        config.blkio_weight = self.blkio_weight;
        config.restart_policy = self.restart.as_ref().map(|restart| restart.body.clone());
    }
}

impl CreationLimits {
    fn apply(&self, config: &mut HostConfig) {
        config.ulimits = some(self.ulimit.clone());
        config.shm_size = self.shm_size;
        config.oom_score_adj = self.oom_score_adj;
        config.oom_kill_disable = self.oom_kill_disable.then_some(true);
        config.memory_swappiness = self.memory_swappiness;
        config.blkio_weight_device = some(self.blkio_weight_device.clone());
        config.blkio_device_read_bps = some(self.device_read_bps.clone());
        config.blkio_device_write_bps = some(self.device_write_bps.clone());
        config.blkio_device_read_iops = some(self.device_read_iops.clone());
        config.blkio_device_write_iops = some(self.device_write_iops.clone());
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        options: ContainerOptions,
    }

    fn parse(words: &str) -> Result<ContainerCreateBody> {
        Line::try_parse_from(std::iter::once("brig").chain(words.split(' ')))?.options.body(true)
    }

    #[test]
    fn the_classic_line_becomes_dockers_request() {
        let body =
            parse("-p 8080:80 --memory 256m --name web -e A=1 -l x=y --cpus 0.5 nginx -g daemon")
                .unwrap();
        let host = body.host_config.unwrap();
        assert_eq!(body.image.as_deref(), Some("nginx"));
        assert_eq!(body.cmd.unwrap(), ["-g", "daemon"]);
        assert_eq!(body.env.unwrap(), ["A=1"]);
        assert_eq!(body.exposed_ports.unwrap(), ["80/tcp"]);
        assert_eq!((host.memory, host.nano_cpus), (Some(256 << 20), Some(500_000_000)));
        assert!(host.port_bindings.unwrap().contains_key("80/tcp"));
    }

    #[test]
    fn input_is_open_once_only_when_interactive_and_attached() {
        let body = parse("-i busybox").unwrap();
        assert_eq!(
            (body.open_stdin, body.stdin_once, body.attach_stdin),
            (Some(true), Some(true), Some(true))
        );
        let body = parse("busybox").unwrap();
        assert_eq!(
            (body.open_stdin, body.stdin_once, body.attach_stdout),
            (Some(false), Some(false), Some(true))
        );
        let body = parse("-i -a stdout busybox").unwrap();
        assert_eq!(
            (body.attach_stdin, body.attach_stdout, body.attach_stderr),
            (Some(false), Some(true), Some(false))
        );
    }

    #[test]
    fn volumes_tmpfs_and_networks_find_their_places() {
        let body = parse("-v /anonymous -v data:/data --tmpfs /t:size=1m --network net --ip 10.1.2.3 --network-alias db x").unwrap();
        assert_eq!(body.volumes.unwrap(), ["/anonymous"]);
        let host = body.host_config.unwrap();
        assert_eq!(host.binds.unwrap(), ["data:/data"]);
        assert_eq!(host.tmpfs.unwrap()["/t"], "size=1m");
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["net"].aliases.as_deref(), Some(&["db".to_owned()][..]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "--gpus all x",
            "--ip 10.0.0.1 x",
            "--restart maybe x",
            "--memory lots x",
            "--no-such-flag x",
            "-p x:y x",
            "--health-cmd a --no-healthcheck x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
