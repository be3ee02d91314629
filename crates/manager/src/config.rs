//! What an engine is told at start: directories, helper programs, defaults for containers.
//!
//! A [`Config`] is built in code ([`Config::new`] and its public fields) or read from TOML by [`Config::load`]. Every key
//! of the file is optional and unknown keys are refused, so that a misspelt one does not silently do nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use brig_storage::Format;
use serde::Deserialize;

use crate::container::runtime;
use crate::error::{Error, Result};

/// The configuration file may not be larger than this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that [`crate::Engine::open`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Durable data: content, snapshots, volumes, metadata, logs.
    pub root: PathBuf,
    /// Data that a reboot may lose: bundles, sockets, network namespaces. On a tmpfs.
    pub state: PathBuf,
    /// The shim program, `containerd-shim-brig-v1`.
    pub shim: PathBuf,
    /// The program that `--init` puts in front of the command (`tini`, `docker-init`, `catatonit`).
    pub init: Option<PathBuf>,
    /// Cgroup beneath which containers live, such as `/brig`.
    pub cgroup_parent: String,
    /// Ask systemd for the cgroups instead of making them.
    pub systemd_cgroup: bool,
    /// The default bridge's link name.
    pub bridge: String,
    /// The default bridge's own address and subnet (`172.17.0.1/16`); chosen when absent.
    pub bridge_address: Option<String>,
    /// The nftables table that holds all rules of this engine. Two engines in one network namespace need two.
    pub nft_table: String,
    /// Address that published ports bind when the request names none.
    pub publish_address: IpAddr,
    /// Resource limits given to containers that do not set their own.
    pub default_ulimits: BTreeMap<String, Ulimit>,
    /// Log driver and its options for containers that do not set their own.
    pub log: LogDefaults,
    /// The OCI runtime of containers that choose none: a name of `runtimes`, or `brig` for the one in the shim.
    pub default_runtime: String,
    /// OCI runtime programs by the name that containers choose them by.
    pub runtimes: BTreeMap<String, RuntimeProgram>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size_bytes: u64,
    /// Registries (`host` or `host:port`) that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Mirrors by registry host, tried in order before the registry itself.
    pub registry_mirrors: BTreeMap<String, Vec<String>>,
    /// A directory of host directories: `HOST/hosts.toml` as containerd has it, or docker's `HOST/ca.crt`,
    /// `HOST/client.cert` and `HOST/client.key`. Read at start; it need not exist.
    pub registry_config_path: PathBuf,
    /// Name servers for containers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Resolver options for containers.
    pub dns_options: Vec<String>,
    /// Search domains for containers.
    pub dns_search: Vec<String>,
    /// Labels of this engine, shown by `info`.
    pub labels: Vec<String>,
    /// Seconds that a stopping container gets before it is killed, unless it says otherwise.
    pub stop_timeout_seconds: u32,
    /// Name of this machine in `info`; the kernel's node name when absent.
    pub node_name: Option<String>,
    /// How the layers of images are kept from now on; those that are there stay as they are.
    pub snapshotter: Format,
    /// Search path for helper programs, colon-separated, as the caller's environment has it.
    pub path: String,
}

/// An OCI runtime program that the shim drives instead of the runtime it has itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeProgram {
    /// Where it is.
    pub path: PathBuf,
    /// Arguments that come before those of the command line of OCI runtimes.
    #[serde(default, rename = "runtime-args", alias = "runtimeArgs")]
    pub arguments: Vec<String>,
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// What the process starts with.
    pub soft: i64,
    /// Up to where it may raise it.
    pub hard: i64,
}

/// Which log a container writes when the request does not say.
#[derive(Debug, Clone)]
pub struct LogDefaults {
    /// `json-file`, `local`, `journald`, `none`, or `binary:///PROGRAM?ARGUMENT=VALUE`.
    pub driver: String,
    /// Options such as `max-size` and `max-file`.
    pub options: BTreeMap<String, String>,
}

impl Default for LogDefaults {
    /// Rotated from the start, so that a talkative container cannot fill the disk.
    fn default() -> Self {
        let options = [("max-size", "20m"), ("max-file", "5")];
        Self {
            driver: "json-file".into(),
            options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }
}

impl Config {
    /// Defaults for an engine that keeps its data in `root` and its run-time state in `state`.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            shim: PathBuf::from("/usr/local/bin/containerd-shim-brig-v1"),
            init: None,
            cgroup_parent: "/brig".into(),
            systemd_cgroup: false,
            bridge: "brig0".into(),
            bridge_address: None,
            nft_table: "brig".into(),
            publish_address: IpAddr::from([0, 0, 0, 0]),
            default_ulimits: BTreeMap::new(),
            log: LogDefaults::default(),
            default_runtime: runtime::BUILT_IN.into(),
            runtimes: BTreeMap::new(),
            shm_size_bytes: 64 << 20,
            insecure_registries: Vec::new(),
            registry_mirrors: BTreeMap::new(),
            registry_config_path: "/etc/brig/certs.d".into(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            labels: Vec::new(),
            stop_timeout_seconds: 10,
            node_name: None,
            snapshotter: Format::Directory,
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        }
    }

    /// Applies the settings of a TOML file over the present ones.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or holds a key or value that is not understood.
    pub fn load(&mut self, file: &Path) -> Result<()> {
        let what = || format!("read configuration {}", file.display());
        let length = std::fs::metadata(file).map_err(|source| Error::io(what(), source))?.len();
        if length > FILE_BYTES_MAX {
            return Err(Error::invalid(format!("{}: larger than {FILE_BYTES_MAX} bytes", what())));
        }
        let text = std::fs::read_to_string(file).map_err(|source| Error::io(what(), source))?;
        self.apply(&text).map_err(|source| source.context(what()))
    }

    fn apply(&mut self, text: &str) -> Result<()> {
        let file: File = toml::from_str(text)
            .map_err(|source| Error::invalid("parse the settings").with_source(source))?;
        let File {
            root,
            state,
            shim,
            init,
            cgroup_parent,
            systemd_cgroup,
            bridge,
            bridge_address,
            nft_table,
            ..
        } = &file;
        set(&mut self.root, root);
        set(&mut self.state, state);
        set(&mut self.shim, shim);
        set(&mut self.cgroup_parent, cgroup_parent);
        set(&mut self.systemd_cgroup, systemd_cgroup);
        set(&mut self.bridge, bridge);
        set(&mut self.nft_table, nft_table);
        set(&mut self.publish_address, &file.publish_address);
        set(&mut self.default_ulimits, &file.default_ulimits);
        set(&mut self.insecure_registries, &file.insecure_registries);
        set(&mut self.registry_mirrors, &file.registry_mirrors);
        set(&mut self.registry_config_path, &file.registry_config_path);
        set(&mut self.dns, &file.dns);
        set(&mut self.dns_options, &file.dns_options);
        set(&mut self.dns_search, &file.dns_search);
        set(&mut self.labels, &file.labels);
        set(&mut self.stop_timeout_seconds, &file.stop_timeout_seconds);
        set(&mut self.default_runtime, &file.default_runtime);
        set(&mut self.runtimes, &file.runtimes);
        self.init = init.clone().or_else(|| self.init.take());
        self.bridge_address = bridge_address.clone().or_else(|| self.bridge_address.take());
        if let Some(size) = &file.shm_size {
            self.shm_size_bytes = parse_size(size)?;
        }
        if let Some(snapshotter) = file.snapshotter {
            self.snapshotter = match snapshotter {
                Snapshotter::Overlay => Format::Directory,
                Snapshotter::Erofs => Format::Erofs,
            };
        }
        if let Some(log) = file.log {
            if log.driver.as_ref().is_some_and(|driver| *driver != self.log.driver) {
                // The options that go by default are of the driver that goes by default.
                self.log.options.clear();
            }
            set(&mut self.log.driver, &log.driver);
            set(&mut self.log.options, &log.options);
        }
        self.check()
    }

    /// Refuses settings that could only fail later.
    pub(crate) fn check(&self) -> Result<()> {
        for (what, path) in [("root", &self.root), ("state", &self.state)] {
            if !path.is_absolute() {
                return Err(Error::invalid(format!(
                    "{what} directory {} is not an absolute path",
                    path.display()
                )));
            }
        }
        if !self.cgroup_parent.starts_with('/') && !self.systemd_cgroup {
            return Err(Error::invalid(format!(
                "cgroup parent {} must start with a slash",
                self.cgroup_parent
            )));
        }
        if self.runtimes.contains_key(runtime::BUILT_IN) {
            return Err(Error::invalid(format!(
                "the runtime {} is built in: choose another name for the program",
                runtime::BUILT_IN
            )));
        }
        if let Some((name, program)) = self.runtimes.iter().find(|it| !is_program(&it.1.path)) {
            return Err(Error::invalid(format!(
                "the path {:?} of runtime {name} is neither absolute nor a program's name",
                program.path
            )));
        }
        let driver = self.log.driver.as_str();
        if !matches!(driver, "json-file" | "local" | "journald" | "none")
            && !driver.starts_with("binary:///")
        {
            return Err(Error::unsupported(format!(
                "log driver {driver} is not built; use json-file, local, journald, none or binary:///PROGRAM"
            )));
        }
        Ok(())
    }
}

/// An absolute path, or a name to be found in the search path.
fn is_program(path: &Path) -> bool {
    path.is_absolute() || path.components().count() == 1
}

fn set<T: Clone>(field: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        *field = value.clone();
    }
}

/// Parses `64m`, `1.5g`, `1024`, `20mb` into bytes: powers of 1024, as docker's sizes are.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let wrong =
        || Error::invalid(format!("invalid size {text:?}: write a number with b, k, m, g or t"));
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.trim().parse().map_err(|_| wrong())?;
    let mut bytes = u128::from(whole) << shift;
    if !fraction.is_empty() {
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let part: u128 = fraction.parse().map_err(|_| wrong())?;
        bytes += (part << shift) / scale;
    }
    u64::try_from(bytes).map_err(|_| wrong())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    shim: Option<PathBuf>,
    init: Option<PathBuf>,
    cgroup_parent: Option<String>,
    systemd_cgroup: Option<bool>,
    bridge: Option<String>,
    bridge_address: Option<String>,
    nft_table: Option<String>,
    publish_address: Option<IpAddr>,
    default_ulimits: Option<BTreeMap<String, Ulimit>>,
    log: Option<FileLog>,
    default_runtime: Option<String>,
    runtimes: Option<BTreeMap<String, RuntimeProgram>>,
    shm_size: Option<String>,
    insecure_registries: Option<Vec<String>>,
    registry_mirrors: Option<BTreeMap<String, Vec<String>>>,
    registry_config_path: Option<PathBuf>,
    dns: Option<Vec<IpAddr>>,
    dns_options: Option<Vec<String>>,
    dns_search: Option<Vec<String>>,
    labels: Option<Vec<String>>,
    stop_timeout_seconds: Option<u32>,
    snapshotter: Option<Snapshotter>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Snapshotter {
    Overlay,
    Erofs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLog {
    driver: Option<String>,
    options: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let good = [
            ("0", 0),
            ("17", 17),
            ("1k", 1024),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("20MB", 20 << 20),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text).expect(text), bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3", "99999999999999t", "1 g x"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_overrides_what_it_names_and_nothing_else() {
        let mut config = Config::new("/r", "/s");
        config
            .apply("bridge = 'br9'\nsnapshotter = 'erofs'\nshm-size = '1m'\n[log]\ndriver = 'none'\n[default-ulimits]\nnofile = { soft = 1, hard = 2 }")
            .expect("good settings");
        assert_eq!(config.bridge, "br9");
        assert_eq!(config.snapshotter, Format::Erofs);
        assert_eq!(config.shm_size_bytes, 1 << 20);
        assert_eq!(config.log.driver, "none");
        assert_eq!(config.default_ulimits["nofile"], Ulimit { soft: 1, hard: 2 });
        assert_eq!(config.nft_table, "brig");
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = Config::new("/r", "/s").apply("brigde = 'x'").expect_err("unknown key");
        assert!(error.report().contains("brigde"), "{}", error.report());
    }

    #[test]
    fn the_documentation_lists_every_key_and_no_other() {
        let document = include_str!("../../../docs/configuration.md");
        let documented: Vec<&str> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let refusal = toml::from_str::<File>("no-such-key = 1")
            .expect_err("unknown key")
            .message()
            .to_owned();
        let known = refusal.split("expected one of ").nth(1).expect("serde lists the fields");
        let known: Vec<&str> = known.split(", ").map(|key| key.trim_matches('`')).collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn the_documented_example_is_valid() {
        let document = include_str!("../../../docs/configuration.md");
        let example = document.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
        let mut config = Config::new("/r", "/s");
        config.apply(example.expect("an example")).expect("a valid example");
        assert_eq!(config.bridge, "brig-two");
    }

    #[test]
    fn runtimes_are_read_in_our_spelling_and_in_docker_s() {
        let mut config = Config::new("/r", "/s");
        let text = "default-runtime = 'two'\n[runtimes.one]\npath = '/opt/one'\n\
                    [runtimes.two]\npath = '/opt/two'\nruntimeArgs = ['--debug']\n";
        config.apply(text).expect("good settings");
        assert_eq!(config.default_runtime, "two");
        assert_eq!(config.runtimes["two"].arguments, ["--debug"]);
        for bad in ["[runtimes.brig]\npath = '/x'", "[runtimes.x]\npath = 'x/y'", "[runtimes.x]"] {
            assert!(Config::new("/r", "/s").apply(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_directories_and_unknown_log_drivers_are_refused() {
        assert!(Config::new("r", "/s").check().is_err());
        let mut config = Config::new("/r", "/s");
        config.log.driver = "syslog".into();
        assert!(config.check().expect_err("unbuilt driver").report().contains("syslog"));
    }
}
