//! Limits: the flags that `run`, `create` and `update` share, and the smaller syntaxes around them.

use anyhow::{Context as _, Result, bail};
use brig_engine_api::models::{
    DeviceMapping, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, ThrottleDevice,
};
use brig_engine_api::restart::{ON_UNHEALTHY, Restarting};
use clap::Args;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use super::size;

/// Limits that can be set at creation and changed later.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ResourceOptions {
    /// Memory limit, such as 256m
    #[arg(short, long, value_name = "SIZE", value_parser = size::bytes)]
    pub(crate) memory: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub(crate) memory_reservation: Option<i64>,
    /// Memory and swap together; -1 leaves swap unlimited
    #[arg(long, value_name = "SIZE", value_parser = size::bytes_or_unlimited, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Number of CPUs, such as 1.5
    #[arg(long, value_name = "DECIMAL", value_parser = size::nano_cpus)]
    pub(crate) cpus: Option<i64>,
    /// Relative CPU weight
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<i64>,
    /// CPU quota's period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<i64>,
    /// CPU quota in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Real-time period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_period: Option<i64>,
    /// Real-time runtime in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, such as 0-3,6
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(crate) blkio_weight: Option<u16>,
    /// When to restart: no, always, unless-stopped, on-failure[:N], or on-unhealthy[:N], which restarts on failure and
    /// when the health check finds it unhealthy
    #[arg(long, value_name = "POLICY", value_parser = RestartParser, hide_possible_values = true)]
    pub(crate) restart: Option<Restarting<RestartPolicy>>,
}

/// Parses `--restart`, and tells completions its words.
#[derive(Debug, Clone, Copy)]
struct RestartParser;

impl TypedValueParser for RestartParser {
    type Value = Restarting<RestartPolicy>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let parser = StringValueParser::new().try_map(|text| restart_policy(&text));
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = ["no", "always", "unless-stopped", "on-failure", ON_UNHEALTHY];
        Some(Box::new(words.into_iter().map(PossibleValue::new)))
    }
}

/// Parses a restart policy.
pub(crate) fn restart_policy(text: &str) -> Result<Restarting<RestartPolicy>> {
    let (name, count) =
        text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let kind = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" | ON_UNHEALTHY => RestartPolicyNameEnum::ON_FAILURE,
        _ => bail!(
            "unknown restart policy {name:?}: use no, always, unless-stopped, on-failure[:N] or on-unhealthy[:N]"
        ),
    };
    let maximum_retry_count = match (kind, count) {
        (_, None) => Some(0),
        (RestartPolicyNameEnum::ON_FAILURE, Some(count)) => Some(
            count
                .parse::<u32>()
                .with_context(|| format!("invalid number of retries {count:?}"))?
                .into(),
        ),
        _ => bail!("only on-failure and on-unhealthy take a number of retries"),
    };
    let body = RestartPolicy { name: Some(kind), maximum_retry_count };
    Ok(Restarting { body, on_unhealthy: name == ON_UNHEALTHY })
}

/// Parses `--ulimit NAME=SOFT[:HARD]`; -1 is unlimited.
pub(crate) fn ulimit(text: &str) -> Result<ResourcesUlimits> {
    let invalid = || format!("invalid ulimit {text:?}: expected NAME=SOFT[:HARD]");
    let (name, limits) = text.split_once('=').with_context(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let soft: i64 = soft.parse().with_context(invalid)?;
    let hard: i64 = hard.parse().with_context(invalid)?;
    if hard != -1 && (soft > hard || soft == -1) {
        bail!("{}: the soft limit exceeds the hard one", invalid());
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// Parses `--device HOST[:CONTAINER][:rwm]`.
pub(crate) fn device(text: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let permissions =
        |text: &str| !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
    let (host, container, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if permissions(access) => (*host, *host, *access),
        [host, container] => (*host, *container, "rwm"),
        [host, container, access] if permissions(access) => (*host, *container, *access),
        _ => bail!("invalid device {text:?}: expected HOST[:CONTAINER][:rwm]"),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        bail!("invalid device {text:?}: paths must be absolute");
    }
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(access.to_owned()),
    })
}

/// Parses `DEVICE:RATE` in bytes per second.
pub(crate) fn throttle_bytes(text: &str) -> Result<ThrottleDevice> {
    throttle(text, size::bytes)
}

/// Parses `DEVICE:RATE` in operations per second.
pub(crate) fn throttle_operations(text: &str) -> Result<ThrottleDevice> {
    throttle(text, |rate| Ok(i64::from(rate.parse::<u32>()?)))
}

fn throttle(text: &str, rate: impl Fn(&str) -> Result<i64>) -> Result<ThrottleDevice> {
    let invalid = || format!("invalid device rate {text:?}: expected /dev/NAME:RATE");
    let (path, limit) = text.rsplit_once(':').with_context(invalid)?;
    if !path.starts_with('/') {
        bail!(invalid());
    }
    Ok(ThrottleDevice {
        path: Some(path.to_owned()),
        rate: Some(rate(limit).with_context(invalid)?),
    })
}

/// Parses `--blkio-weight-device DEVICE:WEIGHT`.
pub(crate) fn weight_device(text: &str) -> Result<ResourcesBlkioWeightDevice> {
    let invalid = || format!("invalid device weight {text:?}: expected /dev/NAME:WEIGHT");
    let (path, weight) = text.rsplit_once(':').with_context(invalid)?;
    Ok(ResourcesBlkioWeightDevice {
        path: Some(path.to_owned()),
        weight: Some(weight.parse().with_context(invalid)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_dockers_and_one_more() {
        let policy = restart_policy("on-failure:3").unwrap();
        assert_eq!(
            (policy.body.name, policy.body.maximum_retry_count, policy.on_unhealthy),
            (Some(RestartPolicyNameEnum::ON_FAILURE), Some(3), false)
        );
        let policy = restart_policy("on-unhealthy:2").unwrap();
        assert_eq!((policy.body.maximum_retry_count, policy.on_unhealthy), (Some(2), true));
        for bad in ["", "sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(restart_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_have_one_or_two_values() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(2048)));
        assert_eq!(ulimit("core=-1").unwrap().hard, Some(-1));
        for bad in ["nofile", "nofile=x", "nofile=2:1", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_have_up_to_three_parts() {
        let mapping = device("/dev/a:r").unwrap();
        assert_eq!(
            (mapping.path_in_container.as_deref(), mapping.cgroup_permissions.as_deref()),
            (Some("/dev/a"), Some("r"))
        );
        assert_eq!(device("/dev/a:/dev/b").unwrap().path_in_container.as_deref(), Some("/dev/b"));
        for bad in ["a", "/dev/a:b", "/dev/a:/dev/b:x", "/a:/b:r:w"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_belong_to_devices() {
        assert_eq!(throttle_bytes("/dev/sda:1m").unwrap().rate, Some(1 << 20));
        assert_eq!(throttle_operations("/dev/sda:100").unwrap().rate, Some(100));
        assert!(throttle_bytes("sda:1").is_err());
    }
}
