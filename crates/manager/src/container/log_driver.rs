//! Which log a container writes, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, parse_size};
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;

/// Rotation of a json-file log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// 0: never.
    pub(crate) max_size_bytes: u64,
    pub(crate) max_files: u32,
    pub(crate) compress: bool,
}

/// The current log file of a container.
pub(crate) fn path(config: &Config, id: &str) -> PathBuf {
    config.root.join("containers").join(id).join(format!("{id}-json.log"))
}

/// The driver's name and options: the request's, or the configured default.
pub(crate) fn chosen(
    record: &ContainerRecord,
    config: &Config,
) -> (String, BTreeMap<String, String>) {
    let requested = record.host_config.log_config.as_ref();
    let driver = requested.and_then(|log| log.typ.clone()).filter(|driver| !driver.is_empty());
    let options: BTreeMap<String, String> =
        requested.and_then(|log| log.config.clone()).unwrap_or_default().into_iter().collect();
    match driver {
        Some(driver) if driver != config.log.driver => (driver, options),
        _ => {
            // Rotation of the request is taken as a whole: docker's max-size without max-file means one file.
            let own = options.contains_key("max-size") || options.contains_key("max-file");
            let mut merged = if own { BTreeMap::new() } else { config.log.options.clone() };
            merged.extend(options);
            (config.log.driver.clone(), merged)
        }
    }
}

/// The rotation of the container's log, `None` when it keeps none.
pub(crate) fn parse(record: &ContainerRecord, config: &Config) -> Result<Option<Rotation>> {
    let (driver, options) = chosen(record, config);
    match driver.as_str() {
        "none" => return Ok(None),
        "json-file" | "local" => {}
        other => {
            return Err(Error::unsupported(format!(
                "log driver {other} is not built; use json-file, local or none"
            )));
        }
    }
    let mut rotation = Rotation { max_size_bytes: 0, max_files: 1, compress: false };
    if driver == "local" {
        rotation = Rotation { max_size_bytes: 20 << 20, max_files: 5, compress: true };
    }
    for (name, value) in &options {
        let wrong = || Error::invalid(format!("invalid value {value:?} for log option {name}"));
        match name.as_str() {
            "max-size" => {
                rotation.max_size_bytes = if value == "-1" { 0 } else { parse_size(value)? }
            }
            "max-file" => {
                rotation.max_files =
                    value.parse().ok().filter(|files| *files >= 1).ok_or_else(wrong)?;
            }
            "compress" => rotation.compress = value.parse().map_err(|_| wrong())?,
            // How docker's client would like it delivered; our shim never blocks the container.
            "mode" | "max-buffer-size" | "labels" | "labels-regex" | "env" | "env-regex"
            | "tag" => {}
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{name}' for {driver} log driver"
                )));
            }
        }
    }
    Ok(Some(rotation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{HostConfig, HostConfigLogConfig};

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<Option<Rotation>> {
        let config =
            options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let log_config =
            Some(HostConfigLogConfig { typ: Some(driver.into()), config: Some(config) });
        let host_config = HostConfig { log_config, ..HostConfig::default() };
        parse(
            &ContainerRecord { host_config, ..ContainerRecord::default() },
            &Config::new("/r", "/s"),
        )
    }

    #[test]
    fn logs_rotate_unless_told_otherwise() {
        let rotation = of("", &[]).expect("good").expect("a log");
        assert_eq!((rotation.max_size_bytes, rotation.max_files), (20 << 20, 5));
        let rotation = of("json-file", &[("max-size", "1m")]).expect("good").expect("a log");
        assert_eq!((rotation.max_size_bytes, rotation.max_files), (1 << 20, 1));
        assert_eq!(of("none", &[]).expect("good"), None);
    }

    #[test]
    fn what_is_not_built_or_not_known_is_refused() {
        assert!(of("journald", &[]).expect_err("unbuilt").report().contains("journald"));
        assert!(of("json-file", &[("max-sise", "1m")]).is_err());
        assert!(of("json-file", &[("max-file", "0")]).is_err());
    }
}
