//! What a request may ask for. Anything that is not built is refused by its name, never silently left out.

use std::net::IpAddr;

use crate::config::Config;
use crate::container::restart::Policy;
use crate::container::{files, health, log_driver, runtime, signal};
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::models::{ContainerConfig, HostConfig, HostConfigIsolationEnum};
use crate::network::port_requests;

/// The longest host name (Linux, `HOST_NAME_MAX`).
const HOST_NAME_BYTES_MAX: usize = 63;

/// Checks what no other part looks at; returns warnings.
pub(super) fn check(record: &mut ContainerRecord, config: &Config) -> Result<Vec<String>> {
    if record.config.network_disabled == Some(true) {
        record.host_config.network_mode = Some("none".into());
    }
    refuse(&record.host_config)?;
    modes(&record.host_config)?;
    names(&record.config, &record.host_config)?;
    log_driver::parse(record, config)?;
    // Kept, so that a container stays with its runtime when the default changes.
    let runtime = record.host_config.runtime.take().filter(|name| !name.is_empty());
    let runtime = runtime.unwrap_or_else(|| config.default_runtime.clone());
    runtime::find(config, &runtime)?;
    record.host_config.runtime = Some(runtime);
    health::check(&record.config)?;
    let policy =
        Policy::parse(record.host_config.restart_policy.as_ref(), record.restarts_unhealthy)?;
    policy.check(health::is_wanted(&record.config))?;
    if record.host_config.auto_remove == Some(true) && policy != Policy::No {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    if let Some(text) = record.config.stop_signal.as_deref().filter(|text| !text.is_empty()) {
        signal::parse(text)?;
    }
    let requests = port_requests(record, config.publish_address)?;
    let mut warnings = Vec::new();
    if record.host_config.network_mode.as_deref() == Some("host") && !requests.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

fn given<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn refuse(host: &HostConfig) -> Result<()> {
    let isolation = !matches!(
        host.isolation,
        None | Some(HostConfigIsolationEnum::EMPTY | HostConfigIsolationEnum::DEFAULT)
    );
    let refused = [
        ("DeviceRequests (--gpus)", given(&host.device_requests)),
        ("Links (--link)", given(&host.links)),
        ("StorageOpt", host.storage_opt.as_ref().is_some_and(|options| !options.is_empty())),
        ("Isolation", isolation),
        ("Cgroup", !text(&host.cgroup).is_empty()),
        ("CpuCount", host.cpu_count.is_some_and(|count| count != 0)),
        ("CpuPercent", host.cpu_percent.is_some_and(|percent| percent != 0)),
        ("IOMaximumIOps", host.io_maximum_iops.is_some_and(|iops| iops != 0)),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth.is_some_and(|bandwidth| bandwidth != 0)),
    ];
    if let Some((name, _)) = refused.into_iter().find(|(_, asked)| *asked) {
        return Err(Error::unsupported(format!("{name} is not built")));
    }
    match text(&host.volume_driver) {
        "" | "local" => Ok(()),
        other => Err(Error::unsupported(format!("volume driver {other} is not built; use local"))),
    }
}

fn modes(host: &HostConfig) -> Result<()> {
    let wrong = |what: &str, mode: &str| Error::invalid(format!("invalid {what} mode: {mode}"));
    match text(&host.userns_mode) {
        "" | "host" => {}
        other => {
            return Err(Error::unsupported(format!(
                "user namespace mode {other} is not built; only host is"
            )));
        }
    }
    match text(&host.uts_mode) {
        "" | "private" | "host" => {}
        other => return Err(wrong("UTS", other)),
    }
    match text(&host.pid_mode) {
        "" | "private" | "host" => {}
        other if other.strip_prefix("container:").is_some_and(|name| !name.is_empty()) => {}
        other => return Err(wrong("PID", other)),
    }
    match text(&host.ipc_mode) {
        "" | "private" | "host" | "none" => {}
        other if other == "shareable" || other.starts_with("container:") => {
            return Err(Error::unsupported(format!(
                "IPC mode {other} is not built; use private, none or host"
            )));
        }
        other => return Err(wrong("IPC", other)),
    }
    if text(&host.network_mode) == "container:" {
        return Err(wrong("network", "container:"));
    }
    Ok(())
}

fn names(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    for name in [text(&config.hostname), text(&config.domainname)]
        .into_iter()
        .filter(|name| !name.is_empty())
    {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.len() > HOST_NAME_BYTES_MAX || !name.bytes().all(good) || name.starts_with('-') {
            return Err(Error::invalid(format!("invalid hostname: {name:?}")));
        }
    }
    let mode = text(&host.network_mode);
    if mode.starts_with("container:") {
        let conflicts = [
            ("hostname", !text(&config.hostname).is_empty()),
            ("published ports", host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty())),
            ("dns", given(&host.dns)),
            ("extra hosts", given(&host.extra_hosts)),
        ];
        if let Some((what, _)) = conflicts.into_iter().find(|(_, asked)| *asked) {
            return Err(Error::invalid(format!(
                "conflicting options: {what} and the network mode {mode}: they are those of the other container"
            )));
        }
    }
    for server in host.dns.iter().flatten() {
        server
            .parse::<IpAddr>()
            .map_err(|_| Error::invalid(format!("invalid name server address: {server:?}")))?;
    }
    let words = host.dns_search.iter().chain(&host.dns_options).flatten();
    if let Some(word) =
        words.into_iter().find(|word| word.bytes().any(|byte| byte <= b' ' || byte == 0x7f))
    {
        return Err(Error::invalid(format!("invalid DNS search domain or option: {word:?}")));
    }
    for entry in host.extra_hosts.iter().flatten() {
        files::parse_extra_host(entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(host_config: HostConfig) -> Result<Vec<String>> {
        let mut record = ContainerRecord { host_config, ..ContainerRecord::default() };
        check(&mut record, &Config::new("/r", "/s"))
    }

    #[test]
    fn what_is_not_built_is_refused_by_its_name() {
        let list = |word: &str| Some(vec![word.to_owned()]);
        let some = |word: &str| Some(word.to_owned());
        let rows: [(&str, HostConfig); 6] = [
            ("Links", HostConfig { links: list("a:b"), ..HostConfig::default() }),
            ("flocker", HostConfig { volume_driver: some("flocker"), ..HostConfig::default() }),
            ("keep-id", HostConfig { userns_mode: some("keep-id"), ..HostConfig::default() }),
            ("shareable", HostConfig { ipc_mode: some("shareable"), ..HostConfig::default() }),
            ("CpuCount", HostConfig { cpu_count: Some(1), ..HostConfig::default() }),
            (
                "StorageOpt",
                HostConfig {
                    storage_opt: Some([("size".to_owned(), "1g".to_owned())].into()),
                    ..HostConfig::default()
                },
            ),
        ];
        for (word, host) in rows {
            let error = checked(host).expect_err(word);
            assert_eq!(error.kind(), crate::ErrorKind::Unsupported, "{word}");
            assert!(error.report().contains(word), "{}", error.report());
        }
    }

    #[test]
    fn malformed_names_and_addresses_are_refused() {
        let list = |word: &str| Some(vec![word.to_owned()]);
        assert!(checked(HostConfig { dns: list("1.2.3"), ..HostConfig::default() }).is_err());
        assert!(
            checked(HostConfig {
                dns_search: list("a\nnameserver 6.6.6.6"),
                ..HostConfig::default()
            })
            .is_err()
        );
        assert!(checked(HostConfig { extra_hosts: list("x"), ..HostConfig::default() }).is_err());
        assert!(
            checked(HostConfig { pid_mode: Some("guest".into()), ..HostConfig::default() })
                .is_err()
        );
        assert!(checked(HostConfig::default()).expect("good").is_empty());
    }
}
