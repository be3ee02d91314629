//! Which log a container writes, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use brig_shim_protocol::options::LogOptions;

use crate::config::{Config, parse_size};
use crate::error::{Error, Result};
use crate::metadata::ContainerRecord;
use crate::name;

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

/// The log that the shim is to write, `None` when it keeps none.
pub(crate) fn parse(record: &ContainerRecord, config: &Config) -> Result<Option<LogOptions>> {
    let (driver, options) = chosen(record, config);
    let mut log = match driver.as_str() {
        "none" => return Ok(None),
        "json-file" => files(config, record, LogOptions { max_files: 1, ..LogOptions::default() }),
        "local" => {
            let (max_size_bytes, max_files, compress) = (20 << 20, 5, true);
            let log = LogOptions { max_size_bytes, max_files, compress, ..LogOptions::default() };
            files(config, record, log)
        }
        "journald" => LogOptions { driver: driver.clone(), ..LogOptions::default() },
        program if program.starts_with("binary:///") => {
            LogOptions { driver: driver.clone(), ..LogOptions::default() }
        }
        other => {
            return Err(Error::unsupported(format!(
                "log driver {other} is not built; use json-file, local, journald, none or binary:///PROGRAM"
            )));
        }
    };
    for (name, value) in &options {
        if !option(&mut log, record, (name, value))? {
            return Err(Error::invalid(format!(
                "unknown log opt '{name}' for {driver} log driver"
            )));
        }
    }
    if log.max_buffer_bytes > 0 && !log.non_blocking {
        return Err(Error::invalid(
            "log option max-buffer-size is only supported with mode=non-blocking",
        ));
    }
    if log.driver == "journald" {
        log.journal_fields = journal_fields(record, &options)?;
    }
    Ok(Some(log))
}

fn files(config: &Config, record: &ContainerRecord, log: LogOptions) -> LogOptions {
    let path = path(config, &record.id).display().to_string();
    LogOptions { driver: "json-file".into(), path, ..log }
}

/// Takes one option; false when the driver has none of that name.
fn option(
    log: &mut LogOptions,
    record: &ContainerRecord,
    (name, value): (&str, &str),
) -> Result<bool> {
    let wrong = || Error::invalid(format!("invalid value {value:?} for log option {name}"));
    let program = log.driver.starts_with("binary:");
    match (name, log.driver == "json-file") {
        ("max-size", true) => {
            log.max_size_bytes = if value == "-1" { 0 } else { parse_size(value)? }
        }
        ("max-file", true) => {
            log.max_files = value.parse().ok().filter(|files| *files >= 1).ok_or_else(wrong)?;
        }
        ("compress", true) => log.compress = value.parse().map_err(|_| wrong())?,
        ("mode", _) => {
            log.non_blocking = match value {
                "blocking" => false,
                "non-blocking" => true,
                _ => return Err(wrong()),
            }
        }
        ("max-buffer-size", _) => log.max_buffer_bytes = parse_size(value)?.max(1),
        ("labels" | "env", _) if !program => {}
        ("tag", _) if !program => drop(tag(record, value)?),
        ("labels-regex" | "env-regex", _) => {
            return Err(Error::unsupported(format!(
                "log option {name} is not built; list the names with labels or env"
            )));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Where `logs` finds what the container writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In files, of which this is the current one.
    Files(PathBuf),
    /// In the machine's journal.
    Journal,
}

/// Where `logs` reads what the container writes.
pub(crate) fn readable(record: &ContainerRecord, config: &Config) -> Result<Place> {
    let log = parse(record, config)?;
    match log.as_ref().map(|log| log.driver.as_str()) {
        Some("json-file") => Ok(Place::Files(path(config, &record.id))),
        Some("journald") => Ok(Place::Journal),
        _ => Err(Error::unsupported("configured logging driver does not support reading")),
    }
}

/// The fields that docker's driver gives every entry of a journal, and what the options name.
fn journal_fields(
    record: &ContainerRecord,
    options: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let template = options.get("tag").map(String::as_str).filter(|tag| !tag.is_empty());
    let tag = tag(record, template.unwrap_or("{{.ID}}"))?;
    let mut fields = vec![
        format!("CONTAINER_ID={}", name::short(&record.id)),
        format!("CONTAINER_ID_FULL={}", record.id),
        format!("CONTAINER_NAME={}", record.name),
        format!("CONTAINER_TAG={tag}"),
        format!("IMAGE_NAME={}", record.config.image.clone().unwrap_or_default()),
        format!("SYSLOG_IDENTIFIER={tag}"),
    ];
    let named = named(record, options).into_iter();
    fields.extend(named.map(|(name, value)| format!("{}={value}", field_name(&name))));
    Ok(fields)
}

/// A name that a journal takes: capital letters, digits and underscores, and no underscore first.
fn field_name(name: &str) -> String {
    let valid = |letter: char| match letter.to_ascii_uppercase() {
        letter if letter.is_ascii_alphanumeric() => letter,
        _ => '_',
    };
    name.chars().map(valid).collect::<String>().trim_start_matches('_').to_owned()
}

/// The labels and variables that the options name.
fn named(record: &ContainerRecord, options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let option = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let mut found = BTreeMap::new();
    let labels = record.config.labels.as_ref();
    for name in option("labels").split(',') {
        if let Some(value) = labels.and_then(|labels| labels.get(name)) {
            found.insert(name.to_owned(), value.clone());
        }
    }
    for wanted in option("env").split(',') {
        let variables = record.config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
        for (name, value) in variables.filter(|(name, _)| *name == wanted) {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// What `logs --details` puts before each line: the labels and variables that the log options name, and the tag, in
/// docker's form (sorted, URL-encoded, a blank at the end).
pub(crate) fn details(record: &ContainerRecord, config: &Config) -> Result<String> {
    let (_, options) = chosen(record, config);
    let mut details = named(record, &options);
    let template = options.get("tag").map(String::as_str).unwrap_or_default();
    let tag = tag(record, template)?;
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

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<Option<LogOptions>> {
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
    fn modes_journals_and_programs_are_taken() {
        let options = [("mode", "non-blocking"), ("max-buffer-size", "2m")];
        let log = of("local", &options).expect("good").expect("a log");
        assert_eq!((log.non_blocking, log.max_buffer_bytes), (true, 2 << 20));
        assert!(log.compress && log.driver == "json-file");
        let log = of("journald", &[("mode", "blocking")]).expect("good").expect("a log");
        assert!(!log.non_blocking && log.journal_fields.len() == 6);
        let program = "binary:///usr/bin/logger?a=b";
        assert_eq!(of(program, &[]).expect("good").expect("a log").driver, program);
        assert_eq!(field_name("_com.example/tier"), "COM_EXAMPLE_TIER");
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
        assert!(of("syslog", &[]).expect_err("unbuilt").report().contains("syslog"));
        assert!(of("journald", &[("max-size", "1m")]).is_err());
        assert!(of("binary:///bin/logger", &[("tag", "x")]).is_err());
        assert!(of("json-file", &[("mode", "sometimes")]).is_err());
        assert!(of("json-file", &[("max-buffer-size", "1m")]).is_err());
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
