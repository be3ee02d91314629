//! Containers in the rows of `ps`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use brig_engine_api::types::ListedContainer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::requests::ListContainers;
use super::{Phase, Shared, View, blocking_with, inspect, lifecycle, timestamp_seconds};
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::metadata::ContainerRecord;
use crate::models::{
    ContainerSummary, ContainerSummaryHealth, ContainerSummaryHealthStatusEnum,
    ContainerSummaryHostConfig, ContainerSummaryNetworkSettings, PortSummaryTypeEnum,
};

const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
];

/// Lists containers, newest first.
pub(super) async fn list(
    shared: &Arc<Shared>,
    request: ListContainers,
) -> Result<Vec<ListedContainer>> {
    let filters = &request.filters;
    let mut known = FILTERS.to_vec();
    known.push("volume");
    filters.check(&known)?;
    check_values(filters)?;
    let mut views = shared.table.views();
    views.sort_by(|left, right| right.record.created_at.cmp(&left.record.created_at));
    let bound = |name: &str| -> Result<Option<String>> {
        let Some(text) = filters.values(name).first() else { return Ok(None) };
        Ok(Some(shared.table.find(text)?.view().record.created_at.clone()))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let any_state = request.all
        || request.limit.is_some()
        || ["status", "exited", "before", "since"]
            .iter()
            .any(|name| !filters.values(name).is_empty());
    let ancestors = ancestors(shared, filters);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut summaries = Vec::new();
    for view in &views {
        let record = &view.record;
        let shown =
            (any_state || record.state.phase.is_alive() || record.state.phase == Phase::Restarting)
                && before.as_ref().is_none_or(|before| record.created_at < *before)
                && since.as_ref().is_none_or(|since| record.created_at > *since)
                && ancestors.as_ref().is_none_or(|images| images.contains(&record.image_id))
                && matches(filters, record);
        if !shown {
            continue;
        }
        let death = record.state.death_reason();
        summaries.push(ListedContainer { container: summary(view, now), death });
        if request.limit.is_some_and(|limit| summaries.len() >= limit) {
            break;
        }
    }
    if request.size {
        for summary in &mut summaries {
            let container = &mut summary.container;
            let id = container.id.clone().unwrap_or_default();
            (container.size_rw, container.size_root_fs) = sizes(shared, &id).await?;
        }
    }
    Ok(summaries)
}

/// Bytes of a container's own layer, and of it with its image.
pub(super) async fn sizes(shared: &Arc<Shared>, id: &str) -> Result<(Option<i64>, Option<i64>)> {
    let record = shared.table.find(id)?.view();
    blocking_with(shared, move |shared| {
        let snapshots = shared.storage.snapshots();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let own = snapshots
            .usage(&lifecycle::snapshot_key(&record.record.id)?)
            .map_or(0, |usage| bytes(usage.bytes));
        let list = snapshots.list();
        let mut parent = record.record.parent_layer.clone();
        let mut below = 0_i64;
        while let Some(info) =
            parent.and_then(|key| list.iter().find(|info| info.key.as_str() == key))
        {
            below = below.saturating_add(info.usage.map_or(0, |usage| bytes(usage.bytes)));
            parent = info.parent.as_ref().map(|key| key.as_str().to_owned());
        }
        Ok((Some(own), Some(own.saturating_add(below))))
    })
    .await
}

fn check_values(filters: &Filters) -> Result<()> {
    const STATES: [&str; 7] =
        ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
    const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
    for (name, known) in [("status", &STATES[..]), ("health", &HEALTH[..])] {
        if let Some(value) =
            filters.values(name).iter().find(|value| !known.contains(&value.as_str()))
        {
            return Err(Error::invalid(format!("invalid filter '{name}={value}'")));
        }
    }
    for value in filters.values("exited") {
        value
            .parse::<i32>()
            .map_err(|_| Error::invalid(format!("invalid filter 'exited={value}'")))?;
    }
    Ok(())
}

/// The ids of the images that `ancestor` filters name; `None` when there is no such filter.
fn ancestors(shared: &Shared, filters: &Filters) -> Option<Vec<String>> {
    let values = filters.values("ancestor");
    if values.is_empty() {
        return None;
    }
    Some(
        values
            .iter()
            .filter_map(|text| Some(shared.images.find(text, None).ok()?.1.id.to_string()))
            .collect(),
    )
}

fn matches(filters: &Filters, record: &ContainerRecord) -> bool {
    let state = &record.state;
    let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
    let ports = |published: bool, wanted: &str| {
        let wanted = wanted.strip_suffix("/tcp").unwrap_or(wanted);
        inspect::ports(record).iter().any(|port| {
            let number = if published { port.public_port } else { Some(port.private_port) };
            let suffix = if port.typ == Some(PortSummaryTypeEnum::UDP) { "/udp" } else { "" };
            number.is_some_and(|number| in_range(wanted, number, suffix))
        })
    };
    filters.any("id", |text| record.id.starts_with(text))
        && filters.any("name", |pattern| name_matches(pattern, &record.name))
        && filters.any("status", |text| state.phase.as_str() == text)
        && filters.any("exited", |text| {
            state.phase == Phase::Exited && text.parse() == Ok(state.exit_code)
        })
        && filters.any("health", |text| health == text)
        && filters.any("network", |text| {
            record.networks.iter().any(|(name, attachment)| {
                let id = attachment.endpoint.as_ref().map(|endpoint| endpoint.network_id.as_str());
                name == text || id.is_some_and(|id| id.starts_with(text))
            })
        })
        && filters.any("volume", |text| {
            record.mounts.iter().any(|mount| {
                mount.name.as_deref() == Some(text)
                    || mount.source == text
                    || mount.destination == text
            })
        })
        && filters.any("publish", |text| ports(true, text))
        && filters.any("expose", |text| ports(false, text))
        && filters.any("is-task", |text| text == "false" || text == "0")
        && filters.any("isolation", |text| text.is_empty() || text == "default")
        && filters.labels(&record.config.labels.clone().unwrap_or_default())
}

fn in_range(wanted: &str, number: u16, suffix: &str) -> bool {
    let Some(range) = (if suffix.is_empty() { Some(wanted) } else { wanted.strip_suffix(suffix) })
    else {
        return false;
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&number))
}

/// Docker matches a regular expression against `/name`; this is the part of it that people use: literal text, with `^`
/// and `$` at its ends and a leading slash, which may be said to be optional.
fn name_matches(pattern: &str, name: &str) -> bool {
    let (pattern, from_start) =
        pattern.strip_prefix('^').map_or((pattern, false), |rest| (rest, true));
    let (pattern, to_end) = pattern.strip_suffix('$').map_or((pattern, false), |rest| (rest, true));
    let (pattern, from_start) = match pattern.strip_prefix("/?") {
        Some(rest) => (rest, from_start),
        None => pattern.strip_prefix('/').map_or((pattern, from_start), |rest| (rest, true)),
    };
    match (from_start, to_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

/// The `until` filter of prune and list calls as an RFC 3339 time to compare with: a time, seconds since 1970, or an age
/// such as `24h`.
pub(crate) fn parse_until(filters: &Filters) -> Result<Option<String>> {
    let Some(text) = filters.values("until").first() else { return Ok(None) };
    let wrong = || Error::invalid(format!("invalid value '{text}' for filter 'until'"));
    let time = if let Ok(seconds) = text.parse::<i64>() {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| wrong())?
    } else if let Some(age) = parse_age(text) {
        OffsetDateTime::now_utc() - age
    } else if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        time
    } else {
        OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).map_err(|_| wrong())?
    };
    let time = time.to_offset(time::UtcOffset::UTC);
    time.format(&Rfc3339).map(Some).map_err(|_| wrong())
}

/// Go's durations: `1h30m`, `10s`.
fn parse_age(text: &str) -> Option<std::time::Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|end| *end > 0)?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = match rest.as_bytes()[end] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    (!text.is_empty()).then(|| std::time::Duration::from_secs(seconds))
}

fn summary(view: &View, now: u64) -> ContainerSummary {
    let record = &view.record;
    let networks = inspect::endpoints(record);
    ContainerSummary {
        id: Some(record.id.clone()),
        names: Some(vec![format!("/{}", record.name)]),
        image: Some(record.image.clone()),
        image_id: Some(record.image_id.clone()),
        command: Some(command(record)),
        created: timestamp_seconds(&record.created_at),
        ports: Some(inspect::ports(record)),
        labels: Some(record.config.labels.clone().unwrap_or_default()),
        state: Some(record.state.phase.into()),
        status: Some(status(record, now)),
        host_config: Some(ContainerSummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        }),
        network_settings: Some(ContainerSummaryNetworkSettings { networks: Some(networks) }),
        mounts: Some(inspect::mounts(record)),
        health: Some(ContainerSummaryHealth {
            status: Some(match record.state.health.as_ref().map(|health| health.status.as_str()) {
                Some("starting") => ContainerSummaryHealthStatusEnum::STARTING,
                Some("healthy") => ContainerSummaryHealthStatusEnum::HEALTHY,
                Some("unhealthy") => ContainerSummaryHealthStatusEnum::UNHEALTHY,
                _ => ContainerSummaryHealthStatusEnum::NONE,
            }),
            failing_streak: Some(
                record.state.health.as_ref().map_or(0, |health| health.failing_streak),
            ),
        }),
        ..ContainerSummary::default()
    }
}

fn command(record: &ContainerRecord) -> String {
    let mut text = record.path.clone();
    for word in &record.args {
        text.push(' ');
        if word.contains(' ') {
            text.push_str(&format!("'{word}'"));
        } else {
            text.push_str(word);
        }
    }
    text
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
fn status(record: &ContainerRecord, now: u64) -> String {
    let state = &record.state;
    let since = |text: &str| {
        let then =
            timestamp_seconds(text).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(now);
        human(now.saturating_sub(then))
    };
    match state.phase {
        Phase::Created => "Created".into(),
        Phase::Running => {
            let health = match state.health.as_ref().map(|health| health.status.as_str()) {
                Some("starting") => " (health: starting)",
                Some("healthy") => " (healthy)",
                Some("unhealthy") => " (unhealthy)",
                _ => "",
            };
            format!("Up {}{health}", since(&state.started_at))
        }
        Phase::Paused => format!("Up {} (Paused)", since(&state.started_at)),
        Phase::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(&state.finished_at))
        }
        Phase::Removing => "Removal In Progress".into(),
        Phase::Exited => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished_at)),
        Phase::Dead => "Dead".into(),
    }
}

/// Docker's words for a span of time.
fn human(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..=59 => format!("{seconds} seconds"),
        60..=119 => "About a minute".into(),
        120..=3599 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_read_as_dockers() {
        let rows = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (600, "10 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (30 * 86_400, "4 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ];
        for (seconds, words) in rows {
            assert_eq!(human(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn names_match_with_and_without_anchors() {
        let rows = [
            ("we", true),
            ("^web$", true),
            ("^/web$", true),
            ("^/?web$", true),
            ("^/?eb$", false),
            ("/?eb", true),
            ("/we", true),
            ("^e", false),
            ("eb$", true),
            ("x", false),
        ];
        for (pattern, expected) in rows {
            assert_eq!(name_matches(pattern, "web"), expected, "{pattern}");
        }
    }

    #[test]
    fn until_takes_times_and_ages() {
        let until = |text: &str| {
            let mut filters = Filters::default();
            filters.insert("until", text);
            parse_until(&filters)
        };
        assert_eq!(until("0").expect("seconds").as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(until("2020-01-02").expect("a day").as_deref(), Some("2020-01-02T00:00:00Z"));
        assert!(until("1h30m").expect("an age").is_some());
        for bad in ["x", "", "1d", "h"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_match_in_ranges_and_by_protocol() {
        assert!(in_range("80", 80, "") && in_range("8000-9000", 8080, ""));
        assert!(in_range("53/udp", 53, "/udp") && !in_range("53", 53, "/udp"));
    }
}
