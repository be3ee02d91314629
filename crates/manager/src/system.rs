//! Calls about the engine as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocking;
use crate::check::{self, CheckNews, CheckReport};
use crate::config::Config;
use crate::container::{Containers, Phase, Shared, now, runtime};
use crate::error::Result;
use crate::image::ListImages;
use crate::models::{
    AuthConfig, AuthResponse, ContainerSummary, ImageSummary, LocalNodeState, PluginsInfo,
    RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo, SystemInfoCgroupDriverEnum,
    SystemInfoCgroupVersionEnum, SystemVersion, SystemVersionComponents, SystemVersionPlatform,
    Volume,
};

/// News of a check that a listener may be behind.
const CHECK_NEWS: usize = 64;

/// News of a long check; the report is the last item, or the error that broke it off.
pub type CheckStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<CheckNews>> + Send>>;

/// Disk use by kind of object.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all image layers, each counted once.
    pub layers_size_bytes: i64,
    /// All images.
    pub images: Vec<ImageSummary>,
    /// All containers, with sizes.
    pub containers: Vec<ContainerSummary>,
    /// All volumes, with usage data.
    pub volumes: Vec<Volume>,
}

/// The engine as a whole.
#[derive(Debug, Clone)]
pub struct System {
    shared: Arc<Shared>,
    containers: Containers,
    id: String,
}

impl System {
    pub(crate) fn new(shared: Arc<Shared>, containers: Containers, id: String) -> Self {
        Self { shared, containers, id }
    }

    /// What the engine and the machine are, and how many objects there are.
    ///
    /// # Errors
    ///
    /// The content store cannot be read.
    pub async fn info(&self) -> Result<SystemInfo> {
        let images = self.shared.images.count().await?;
        let machine = blocking::run(|| Ok(Machine::read())).await?;
        let views = self.shared.table.views();
        let count = |wanted: &dyn Fn(Phase) -> bool| {
            i64::try_from(views.iter().filter(|view| wanted(view.record.state.phase)).count()).ok()
        };
        let config = &self.shared.config;
        let v2 = self.shared.cgroup_v2;
        let info = SystemInfo {
            id: Some(self.id.clone()),
            containers: count(&|_| true),
            containers_running: count(&|phase| {
                phase == Phase::Running || phase == Phase::Restarting
            }),
            containers_paused: count(&|phase| phase == Phase::Paused),
            containers_stopped: count(&|phase| {
                matches!(phase, Phase::Created | Phase::Exited | Phase::Dead | Phase::Removing)
            }),
            images: i64::try_from(images).ok(),
            driver: Some(self.shared.images.driver().into()),
            driver_status: Some(Vec::new()),
            docker_root_dir: Some(config.root.display().to_string()),
            plugins: Some(plugins()),
            debug: Some(tracing::enabled!(tracing::Level::DEBUG)),
            system_time: Some(now()),
            logging_driver: Some(config.log.driver.clone()),
            cgroup_driver: Some(if config.systemd_cgroup {
                SystemInfoCgroupDriverEnum::SYSTEMD
            } else {
                SystemInfoCgroupDriverEnum::CGROUPFS
            }),
            cgroup_version: Some(if v2 {
                SystemInfoCgroupVersionEnum::_2
            } else {
                SystemInfoCgroupVersionEnum::_1
            }),
            n_events_listener: i64::try_from(self.shared.events.listeners()).ok(),
            index_server_address: Some("https://index.docker.io/v1/".into()),
            registry_config: Some(self.registries()),
            labels: Some(config.labels.clone()),
            name: Some(config.node_name.clone().unwrap_or_else(|| machine.node_name.clone())),
            server_version: Some(env!("CARGO_PKG_VERSION").into()),
            runtimes: Some(runtimes(config)),
            default_runtime: Some(config.default_runtime.clone()),
            live_restore_enabled: Some(true),
            init_binary: config.init.as_ref().map(|path| path.display().to_string()),
            security_options: Some(vec!["name=seccomp,profile=builtin".into()]),
            experimental_build: Some(false),
            swarm: Some(SwarmInfo {
                node_id: Some(String::new()),
                local_node_state: Some(LocalNodeState::INACTIVE),
                control_available: Some(false),
                ..SwarmInfo::default()
            }),
            ..SystemInfo::default()
        };
        Ok(machine.fill(info))
    }

    fn registries(&self) -> RegistryServiceConfig {
        let config = &self.shared.config;
        let mirrors = config.registry_mirrors.get("docker.io").cloned().unwrap_or_default();
        let index = |name: &str, secure: bool| {
            let official = name == "docker.io";
            let mirrors = config.registry_mirrors.get(name).cloned().unwrap_or_default();
            crate::models::IndexInfo {
                name: Some(name.to_owned()),
                mirrors: Some(mirrors),
                secure: Some(secure),
                official: Some(official),
            }
        };
        let mut indexes = HashMap::from([("docker.io".to_owned(), index("docker.io", true))]);
        for host in &config.insecure_registries {
            indexes.insert(host.clone(), index(host, false));
        }
        RegistryServiceConfig {
            insecure_registry_cidrs: Some(vec!["127.0.0.0/8".into(), "::1/128".into()]),
            index_configs: Some(indexes),
            mirrors: Some(mirrors),
        }
    }

    /// Versions of the engine, its API and the kernel.
    ///
    /// # Errors
    ///
    /// None at present.
    pub async fn version(&self) -> Result<SystemVersion> {
        let kernel = kernel_release();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let api = brig_engine_api::API_VERSION.to_string();
        let details = HashMap::from([
            ("ApiVersion".to_owned(), api.clone()),
            ("MinAPIVersion".to_owned(), brig_engine_api::MIN_API_VERSION.to_string()),
            ("Os".to_owned(), "linux".to_owned()),
            ("Arch".to_owned(), architecture()),
            ("KernelVersion".to_owned(), kernel.clone()),
        ]);
        Ok(SystemVersion {
            platform: Some(SystemVersionPlatform { name: "Brig".into() }),
            components: Some(vec![SystemVersionComponents {
                name: "Engine".into(),
                version: version.clone(),
                details: Some(details),
            }]),
            version: Some(version),
            api_version: Some(api),
            min_api_version: Some(brig_engine_api::MIN_API_VERSION.to_string()),
            git_commit: Some(String::new()),
            go_version: Some(String::new()),
            os: Some("linux".into()),
            arch: Some(architecture()),
            kernel_version: Some(kernel),
            experimental: Some(false),
            build_time: Some(String::new()),
        })
    }

    /// How much disk the objects take.
    ///
    /// # Errors
    ///
    /// A store cannot be read.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let list = crate::ListContainers { all: true, size: true, ..Default::default() };
        let listed = self.containers.list(list).await?;
        Ok(DiskUsage {
            layers_size_bytes: self.shared.images.layers_size().await?,
            images: self.shared.images.list(ListImages::default()).await?,
            containers: listed.into_iter().map(|listed| listed.container).collect(),
            volumes: self.shared.volumes.usage().await?,
        })
    }

    /// Who holds each byte beneath the engine's root.
    ///
    /// # Errors
    ///
    /// A store cannot be read.
    pub async fn explain_disk_usage(&self) -> Result<Vec<crate::DiskEntry>> {
        crate::disk::explain(&self.shared).await
    }

    /// Compares the records with what exists; with `repair` removes what has no owner.
    ///
    /// # Errors
    ///
    /// A store cannot be read.
    pub async fn check(&self, repair: bool) -> Result<CheckReport> {
        check::check(&self.shared, repair).await
    }

    /// As [`System::check`], and hashes all content again; with `repair` fetches again what is damaged or missing. The
    /// report comes last. With `repair` it runs to its end, whether or not anybody listens.
    #[must_use]
    pub fn check_content(&self, repair: bool) -> CheckStream {
        let (sender, receiver) = tokio::sync::mpsc::channel(CHECK_NEWS);
        let (shared, news) = (Arc::clone(&self.shared), sender.clone());
        tokio::spawn(async move {
            let report = check::check_content(&shared, repair, news).await;
            // Nobody may be left to hear it.
            let _ = sender.send(report.map(CheckNews::Report)).await;
        });
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }

    /// Tries a user name and password on a registry.
    ///
    /// # Errors
    ///
    /// The registry refuses them, or cannot be reached.
    pub async fn authenticate(&self, auth: AuthConfig) -> Result<AuthResponse> {
        self.shared.images.authenticate(auth).await
    }
}

/// The built-in runtime, whose path is the shim's, and the programs.
fn runtimes(config: &Config) -> HashMap<String, Runtime> {
    let built_in = Runtime { path: Some(config.shim.display().to_string()), ..Runtime::default() };
    let mut runtimes = HashMap::from([(runtime::BUILT_IN.to_owned(), built_in)]);
    for (name, program) in runtime::list(config) {
        let runtime_args = Some(program.arguments).filter(|arguments| !arguments.is_empty());
        let path = Some(program.path.display().to_string());
        runtimes.insert(name, Runtime { path, runtime_args, ..Runtime::default() });
    }
    runtimes
}

fn plugins() -> PluginsInfo {
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    PluginsInfo {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "null"]),
        authorization: None,
        log: list(&["journald", "json-file", "local"]),
    }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Go's name of this machine's architecture.
fn architecture() -> String {
    brig_images::Platform::host().architecture
}

/// What the kernel says about the machine.
#[derive(Debug, Default)]
struct Machine {
    node_name: String,
    operating_system: String,
    os_version: String,
    memory_bytes: Option<i64>,
    controllers: Vec<String>,
    forwarding: bool,
}

impl Machine {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = [read("/etc/os-release"), read("/usr/lib/os-release")].concat();
        let field = |name: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let kib = read("/proc/meminfo");
        let kib = kib
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next());
        let cgroups = read("/proc/cgroups");
        let v1 = cgroups.lines().filter(|line| !line.starts_with('#'));
        let enabled = v1.filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            matches!(fields[..], [_, _, _, "1"]).then(|| fields[0].to_owned())
        });
        let unified = read("/sys/fs/cgroup/cgroup.controllers");
        Self {
            node_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            operating_system: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
            memory_bytes: kib.and_then(|kib| kib.parse::<i64>().ok()?.checked_mul(1024)),
            controllers: enabled
                .chain(unified.split_ascii_whitespace().map(str::to_owned))
                .collect(),
            forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        }
    }

    fn fill(&self, info: SystemInfo) -> SystemInfo {
        let has = |name: &str| Some(self.controllers.iter().any(|controller| controller == name));
        let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let warnings = if self.forwarding {
            Vec::new()
        } else {
            vec!["WARNING: IPv4 forwarding is disabled".into()]
        };
        SystemInfo {
            memory_limit: has("memory"),
            swap_limit: has("memory"),
            cpu_cfs_period: has("cpu"),
            cpu_cfs_quota: has("cpu"),
            cpu_shares: has("cpu"),
            cpu_set: has("cpuset"),
            pids_limit: has("pids"),
            oom_kill_disable: has("memory"),
            ipv4_forwarding: Some(self.forwarding),
            kernel_version: Some(kernel_release()),
            operating_system: Some(self.operating_system.clone()),
            os_version: Some(self.os_version.clone()),
            os_type: Some("linux".into()),
            architecture: Some(std::env::consts::ARCH.into()),
            ncpu: i64::try_from(online).ok(),
            mem_total: self.memory_bytes,
            warnings: Some(warnings),
            ..info
        }
    }
}
