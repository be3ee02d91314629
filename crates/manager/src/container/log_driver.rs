//! Which log a container writes, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, parse_size};
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::name;

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
            "mode" | "max-buffer-size" => {}
            "labels" | "env" => {}
            "tag" => drop(tag(record, value)?),
            "labels-regex" | "env-regex" => {
                return Err(Error::unsupported(format!(
                    "log option {name} is not built; list the names with labels or env"
                )));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{name}' for {driver} log driver"
                )));
            }
        }
    }
    Ok(Some(rotation))
}

/// What `logs --details` puts before each line: the labels and variables that the log options name, and the tag, in
/// docker's form (sorted, URL-encoded, a blank at the end).
pub(crate) fn details(record: &ContainerRecord, config: &Config) -> Result<String> {
    let (_, options) = chosen(record, config);
    let option = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let mut details = BTreeMap::new();
    let labels = record.config.labels.as_ref();
    for name in option("labels").split(',') {
        if let Some(value) = labels.and_then(|labels| labels.get(name)) {
            details.insert(name.to_owned(), value.clone());
        }
    }
    for wanted in option("env").split(',') {
        let variables = record.config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
        for (name, value) in variables.filter(|(name, _)| *name == wanted) {
            details.insert(name.to_owned(), value.to_owned());
        }
    }
    let tag = tag(record, option("tag"))?;
    if !tag.is_empty() {
        details.insert("tag".to_owned(), tag);
    }
    let pairs = details.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    Ok(format!("{} ", pairs.collect::<Vec<_>>().join(",")))
}

/// Fills in the tag's template, which may name the container and its image.
fn tag(record: &ContainerRecord, template: &str) -> Result<String> {
    let image = record.config.image.clone().unwrap_or_default();
    let bare = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = match field.trim() {
            ".ID" => name::short(&record.id),
            ".FullID" => &record.id,
            ".Name" => &record.name,
            ".ImageID" => name::short(bare),
            ".ImageFullID" => &record.image_id,
            ".ImageName" => &image,
            ".DaemonName" => "brig",
            other => {
                return Err(Error::unsupported(format!(
                    "{{{{{other}}}}} in log option tag is not built; use .ID, .FullID, .Name, .ImageID, .ImageFullID, \
                     .ImageName or .DaemonName"
                )));
            }
        };
        tag.push_str(before);
        tag.push_str(value);
        rest = after;
    }
    Ok(tag + rest)
}

/// `application/x-www-form-urlencoded`.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;

    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
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
    fn details_are_what_the_options_name() {
        let mut record = ContainerRecord { id: "0123456789abcdef".into(), ..Default::default() };
        record.name = "web".into();
        record.config.labels =
            Some([("tier".to_owned(), "a b".to_owned()), ("x".to_owned(), "y".to_owned())].into());
        record.config.env = Some(vec!["MODE=fast&loose".into(), "PATH=/bin".into()]);
        let options = [("labels", "tier,none"), ("env", "MODE"), ("tag", "{{.Name}}/{{.ID}}")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let log = HostConfigLogConfig { typ: None, config: Some(options.into()) };
        record.host_config.log_config = Some(log);
        let config = Config::new("/r", "/s");
        assert_eq!(
            details(&record, &config).expect("good"),
            "MODE=fast%26loose,tag=web%2F0123456789ab,tier=a+b "
        );
        assert_eq!(details(&ContainerRecord::default(), &config).expect("good"), " ");
    }

    #[test]
    fn what_is_not_built_or_not_known_is_refused() {
        assert!(of("journald", &[]).expect_err("unbuilt").report().contains("journald"));
        assert!(
            of("json-file", &[("env-regex", "^A")])
                .expect_err("unbuilt")
                .report()
                .contains("env-regex")
        );
        assert!(
            of("json-file", &[("tag", "{{.Foo}}")]).expect_err("unbuilt").report().contains(".Foo")
        );
        assert!(of("json-file", &[("max-sise", "1m")]).is_err());
        assert!(of("json-file", &[("max-file", "0")]).is_err());
    }
}
